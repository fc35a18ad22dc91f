"""Heads first: trained alone on what the encoders say before they change, so that they do not change for its noise.

Linear probing, then fine-tuning: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution" (ICLR), https://arxiv.org/abs/2202.10054. The encoders run once over train and validation, on
images that are not augmented; epochs of the heads then cost next to nothing.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from builders.errors import UserError
from train.config import TrainConfig
from train.data import Rows, Split
from train.device import threads_for
from train.features import Features
from train.inputs import CachedInputs, Inputs
from train.loop import fit
from train.mapped import new_array, precision_of
from train.memory import Tell, in_batches, untold
from train.model import FusionModel
from train.processes import ALONE, Processes

_LEAVE_OUT = "leave --head-epochs out"
_KEPT = "features"  # in a run's folder of checkpoints, while its heads are trained


def train_heads_first(
    model: FusionModel,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    split: Split,
    config: TrainConfig,
    seed: int,
    folder: Path,
    processes: Processes = ALONE,
    tell: Tell = untold,
    chooses: bool = True,
) -> None:
    """Train the fusion of `model` for `config.head_epochs` epochs, the encoders as they are; of them the best is kept.

    Where it does not choose, the last one, and no score is told: validation is trained on then. Test rows are not
    looked at. Tokens are kept below `folder` meanwhile.
    """
    settings = config.model_copy(update={"is_frozen": True, "epochs": config.head_epochs})
    kept = folder / f"{_KEPT}-{processes.number}"
    rows = np.union1d(split.train, split.validation)
    try:
        features = features_once(model, inputs, rows, len(labels), config, kept, tell)
        device = next(model.fusion.parameters()).device
        with threads_for(model, features, config, device):
            done = fit(
                model, features, labels, split, settings, seed, lambda _: None,
                processes=processes, tell=tell, chooses=chooses,
            )  # fmt: skip
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    if chooses:
        tell(
            f"heads first, on frozen encoders: validation macro-F1 {done.best.validation_macro_f1:.3f} in epoch "
            f"{done.best.epoch} of {config.head_epochs}"
        )


def then_all(model: FusionModel, config: TrainConfig) -> TrainConfig:
    """What `config` is once the heads are trained: they go on at the greatest learning rate of the trained encoders."""
    towers = ((model.image, config.image_layers, config.image_lr), (model.text, config.text_layers, config.text_lr))
    rates = [lr for tower, n_layers, lr in towers if tower is not None and n_layers != 0]
    return config.model_copy(update={"lr": max(rates, default=config.lr)})


@torch.inference_mode()
def features_once(
    model: FusionModel,
    inputs: Inputs,
    rows: Rows,
    n_rows: int,
    config: TrainConfig,
    folder: Path,
    tell: Tell = untold,
) -> CachedInputs:
    """What `model` sees of `rows`, out of `n_rows` in all, as inputs that need no encoder; other rows are zeros.

    Tokens, where the fusion reads them, are memory-mapped below `folder`. Raises `UserError` where one row does not fit
    in memory, and on features that half precision cannot hold, and where the disk has no room.
    """
    model.eval()
    device = next(model.fusion.parameters()).device
    arrays: dict[str, npt.NDArray[Any]] = {}
    mask: npt.NDArray[np.bool_] = np.zeros((n_rows, 0), dtype=np.bool_)

    def features_of(part: slice) -> Features:
        return inputs.features(model, rows[part])

    for part, found in in_batches(len(rows), config.micro_batch_size, features_of, "features for the heads", tell):
        if not arrays:
            n_text = max(found.text_mask.shape[1], config.max_text_tokens)  # a batch's longest is not the longest
            mask = np.zeros((n_rows, n_text), dtype=np.bool_)
            arrays = {
                "image_tokens": _zeros((n_rows, *found.image_tokens.shape[1:]), folder / "image.npy"),
                "image_pooled": _zeros((n_rows, *found.image_pooled.shape[1:])),
                "text_tokens": _zeros((n_rows, n_text, found.text_tokens.shape[2]), folder / "text.npy"),
                "text_pooled": _zeros((n_rows, *found.text_pooled.shape[1:])),
            }
        length = found.text_mask.shape[1]
        mask[rows[part], :length] = found.text_mask.cpu().numpy()
        for name, array in arrays.items():
            values = getattr(found, name).float().cpu().numpy()
            if np.abs(values).max(initial=0.0) > np.finfo(array.dtype).max:
                raise UserError(f"a backbone gave features that {array.dtype.name} cannot hold", _LEAVE_OUT)
            if name == "text_tokens":
                array[rows[part], :length] = values
            else:
                array[rows[part]] = values
    image = (arrays["image_tokens"], arrays["image_pooled"]) if model.image is not None else None
    text = (arrays["text_tokens"], arrays["text_pooled"]) if model.text is not None else None
    return CachedInputs(image, text, mask, device)


def _zeros(shape: tuple[int, ...], path: Path | None = None) -> npt.NDArray[Any]:
    """Zeros in memory, or in a file that takes as much of the disk as is written to it."""
    if path is None or 0 in shape:
        return np.zeros(shape, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    return new_array(path, shape, precision_of(shape), "what the heads see", f"make room, or {_LEAVE_OUT}")
