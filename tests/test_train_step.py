"""train/step.py: a batch in parts is the batch, and memory that does not do is a smaller part, not an end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from builders.errors import UserError
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.imbalance import IMBALANCE
from train.inputs import LiveInputs
from train.loop import batches, fit
from train.model import FusionModel
from train.scaling import measure_scaling
from train.step import parts_of

TINY = SHAPES["tiny"]
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(TINY, 60)  # 42 train rows: the last batch of 16 has 10
STEADY = replace(TINY, dropout=0.0)  # dropout draws other numbers for other parts


class Memory(LiveInputs):
    """As a device on which only so many rows fit."""

    def __init__(self, n_rows):
        super().__init__(PIXELS, TEXTS, torch.device("cpu"), is_augmented=True)
        self.n_rows = n_rows

    def features(self, model, rows, order=None):
        if order is not None and len(rows) > self.n_rows:  # a prediction needs less: see test_train_memory.py
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().features(model, rows, order)


def fitted(n_fit=1000, told=None, **options):
    model = FusionModel("attention_pooling", CLASS_NAMES, *random_backbones(STEADY))
    settings = {"epochs": 2, "batch_size": 16, "image_lr": 1e-3, "text_lr": 1e-3, **options}
    config = TrainConfig(dataset="x", out="x", **settings)
    tell = (lambda _: None) if told is None else told.append
    done = fit(model, Memory(n_fit), LABELS, SPLIT, config, 0, lambda _: None, tell=tell)
    return model, done


def assert_close(model, expected):
    for (name, found), (_, wanted) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        if name.endswith(("k_proj.bias", "key.bias")):
            continue  # its gradient is zero but for rounding, which AdamW blows up: a softmax does not see it
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("imbalance", IMBALANCE)
@pytest.mark.parametrize("accumulate", [3, 16])
def test_a_batch_in_parts_trains_as_the_whole_batch(imbalance, accumulate):
    options = {"imbalance": imbalance, "label_smoothing": 0.1, "ema": 0.5}
    whole, once = fitted(**options)
    parts, again = fitted(accumulate=accumulate, **options)
    assert_close(parts, whole)
    for first, second in zip(once.history, again.history, strict=True):
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)


def test_the_loop_trains_as_plain_pytorch_does_on_whole_batches():
    """Written out again without any of the loop's parts: cross-entropy with weights, clipping, AdamW, the schedule."""
    model = FusionModel("concat", CLASS_NAMES, *random_backbones(STEADY))
    inputs = LiveInputs(PIXELS, TEXTS, torch.device("cpu"), is_augmented=True)
    measure_scaling(model, inputs, SPLIT.train, 16)
    counts = np.bincount(LABELS[SPLIT.train], minlength=4)
    weights = torch.from_numpy(42 / (4 * counts)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    factors = [1 / 1.3, 0.5 * (1 + np.cos(np.pi * 0.7 / 2.7)), 0.5 * (1 + np.cos(np.pi * 1.7 / 2.7))]
    for rows, factor in zip(batches(SPLIT.train, 16, 0, 0), factors, strict=True):
        optimizer.param_groups[0]["lr"] = 1e-3 * factor
        logits = model(inputs.features(model, rows, order=(0, 0)))
        loss = F.cross_entropy(logits, torch.from_numpy(LABELS[rows]), weight=weights, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    ours = FusionModel("concat", CLASS_NAMES, *random_backbones(STEADY))
    config = TrainConfig(
        dataset="x",
        out="x",
        epochs=1,
        batch_size=16,
        accumulate=4,
        lr=1e-3,
        image_lr=1e-3,
        text_lr=1e-3,
        weight_decay=0,
        imbalance="class_weights",
        label_smoothing=0.1,
    )
    fit(ours, inputs, LABELS, SPLIT, config, 0, lambda _: None)
    assert_close(ours, model)


def test_parts_are_of_almost_one_size_and_never_empty():
    parts = parts_of(np.arange(10), 4)
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    assert len(parts_of(np.arange(3), 8)) == 3


def test_a_batch_that_does_not_fit_is_halved_said_and_gives_the_same_result():
    told = []
    whole, _ = fitted()
    cut, done = fitted(5, told)
    assert_close(cut, whole)
    assert done.accumulate == 4
    assert told == [
        "16 rows at a time do not fit in the device's memory: a batch of 16 is now computed in 2 parts of up to 8; "
        "the batch stays the same (--accumulate 2 begins so)",
        "8 rows at a time do not fit in the device's memory: a batch of 16 is now computed in 4 parts of up to 4; "
        "the batch stays the same (--accumulate 4 begins so)",
    ]


def test_a_single_row_that_does_not_fit_is_a_clear_error():
    with pytest.raises(UserError) as raised:
        fitted(0)
    assert str(raised.value) == (
        "one row at a time does not fit in the device's memory\n"
        "  fix: choose smaller backbones, train fewer blocks (--image-layers, --text-layers), or use --frozen"
    )
