"""The scale of a backbone's features, measured on rows of train before the first step."""

import numpy as np
import torch
from torch import Tensor

from train.data import Rows
from train.features import Features, Scaling
from train.inputs import Inputs
from train.memory import Tell, in_batches, untold
from train.model import FusionModel

_SCALING_ROWS = 2048  # enough rows of train to measure the features' scale on


@torch.inference_mode()
def measure_scaling(model: FusionModel, inputs: Inputs, train: Rows, batch_size: int, tell: Tell = untold) -> None:
    """Set the model's feature scaling to the mean and standard deviation over (at most 2,048 of) the train rows."""
    model.eval()
    rows = np.sort(np.random.default_rng(0).permutation(train)[:_SCALING_ROWS])
    sums: dict[str, list[Tensor]] = {}

    def features_of(part: slice) -> Features:
        return inputs.features(model, rows[part])

    for _, features in in_batches(len(rows), batch_size, features_of, "the scale of features", tell):
        has_text = features.text_mask.any(dim=1)
        for name, values in (
            ("image_tokens", features.image_tokens.flatten(0, 1)),
            ("image_pooled", features.image_pooled),
            ("text_tokens", features.text_tokens[features.text_mask]),
            ("text_pooled", features.text_pooled[has_text]),
        ):
            exact = values.double()
            moments = [torch.tensor(len(exact)), exact.sum(dim=0).cpu(), exact.square().sum(dim=0).cpu()]
            sums[name] = [old + new for old, new in zip(sums[name], moments, strict=True)] if name in sums else moments
    for name, (n_values, total, squares) in sums.items():
        scaling = model.scaling[name]
        assert isinstance(scaling, Scaling)
        if n_values < 2 or not len(total):
            continue  # a modality that is not there, or no description at all: stays the identity
        mean = total / n_values
        sd = (squares / n_values - mean.square()).clamp(min=0).sqrt()
        scaling.mean.copy_(mean)
        scaling.sd.copy_(torch.where(sd > 1e-6, sd, torch.ones_like(sd)))  # a constant dimension stays zero
