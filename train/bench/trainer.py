"""The same model, data and batch size under the transformers `Trainer`, given its data as conveniently as ours."""

import math
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.errors import UserError
from train.augmentation import augment
from train.bench.bare import wait_for
from train.config import TrainConfig
from train.data import Rows
from train.inputs import LiveInputs
from train.model import FusionModel
from train.optimizer import lr_factor, make_optimizer
from train.scaling import measure_scaling

N_READ_AHEAD = 2  # batches behind the last timed step's: then as many are made as are used while the clock runs


class _WithLoss(nn.Module):
    """A fusion model with the signature that `Trainer` asks for."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, token_ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(self.model.encode(pixels, token_ids, mask, len(labels)))
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}


class _RowsOf(torch.utils.data.Dataset[int]):
    """Numbers of rows; the collator reads a batch's pixels at once, which is the fastest that it can do."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> int:
        return int(self.rows[position])


class TrainerLoop:
    """`Trainer` on the train rows: packed pixels, tokens made once, our crops of each epoch, AdamW and schedule."""

    def __init__(
        self, model: FusionModel, inputs: LiveInputs, labels: Rows, train: Rows, config: TrainConfig, seed: int
    ) -> None:
        self.model, self.inputs, self.labels, self.train = model, inputs, labels, train
        self.config, self.seed = config, seed
        self.n_collated = 0  # batches of this call of `run`, which tell the epoch
        measure_scaling(model, inputs, train, config.batch_size)

    def run(self, n_steps: int, n_warm_up: int = 0, n_behind: int = 0) -> float:
        """Take `n_warm_up` steps, `n_steps` and `n_behind` more; the seconds that the `n_steps` took.

        With a step behind them the clock stops where that one begins, and `N_READ_AHEAD` batches more than are timed
        keep the `Trainer` from having read the last of them before the clock started. The model has the last weights.
        """
        import transformers

        self.n_collated = 0
        optimizer = make_optimizer(self.model, self.config)
        total = n_warm_up + n_steps + n_behind
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total, self.config))
        moments: list[float] = []
        device = self.inputs.device

        class Clock(transformers.TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step in (n_warm_up, n_warm_up + n_steps):
                    wait_for(device)
                    moments.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            try:
                arguments = transformers.TrainingArguments(
                    output_dir=folder,
                    per_device_train_batch_size=self.config.batch_size,
                    max_steps=total,
                    max_grad_norm=self.config.clip_norm,
                    bf16=self.config.is_bf16,
                    use_cpu=device.type == "cpu",
                    seed=self.seed,
                    save_strategy="no",
                    logging_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    remove_unused_columns=False,
                    dataloader_pin_memory=False,  # the collator gives tensors that are where they are needed
                    label_names=["labels"],
                )
            except ImportError as error:
                raise UserError(
                    f"the transformers Trainer cannot be used: {error}", "pip install accelerate"
                ) from error
            trainer = transformers.Trainer(
                model=_WithLoss(self.model),
                args=arguments,
                train_dataset=_RowsOf(self.train),
                data_collator=self._collate,
                optimizers=(optimizer, schedule),
                callbacks=[Clock()],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        wait_for(device)
        moments.append(time.perf_counter())
        return moments[1] - moments[0]

    def _collate(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        rows = np.asarray(chosen, dtype=np.int64)
        texts = self.inputs.texts
        assert texts is not None
        length = int(texts.mask[rows].sum(axis=1).max())
        # Counted, as the `Trainer` tells its collator no epoch; one is read ahead, but never beyond an epoch's end.
        epoch = self.n_collated // math.ceil(len(self.train) / self.config.batch_size)
        self.n_collated += 1
        pixels = self.inputs.pixels_of(rows)
        return {
            "pixels": augment(pixels, rows, self.seed, epoch) if self.inputs.is_augmented else pixels,
            "token_ids": torch.from_numpy(texts.token_ids[rows, :length]),
            "mask": torch.from_numpy(texts.mask[rows, :length]),
            "labels": torch.from_numpy(self.labels[rows]),
        }
