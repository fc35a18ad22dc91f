"""train/checkpoint.py: a fit that was killed at any moment goes on, and ends with the same bits."""

import multiprocessing
import os
import random
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.errors import UserError
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.checkpoint import FILE_NAME, MAY_CHANGE, MAY_COME, key_of
from train.config import TrainConfig
from train.inputs import LiveInputs
from train.loop import fit
from train.model import FusionModel

pytestmark = pytest.mark.usefixtures("one_thread")

PIXELS, TEXTS, LABELS, SPLIT = learnable_data(SHAPES["tiny"], 78)  # 54 train rows
# Everything at once that a resume could forget: dropout, augmentation, averages, an uneven last batch in two parts.
OPTIONS = {
    "epochs": 3,
    "batch_size": 16,
    "accumulate": 2,
    "image_lr": 1e-3,
    "text_lr": 1e-3,
    "ema": 0.9,
    "label_smoothing": 0.1,
    "imbalance": "balanced_sampler",
    "modality_dropout": 0.3,
}


class StoppedError(Exception):
    """Stands for a kill inside a process."""


class StoppingInputs(LiveInputs):
    """Stops the fit when training asks for features for the n-th time."""

    def __init__(self, stop_at):
        super().__init__(PIXELS, TEXTS, torch.device("cpu"), is_augmented=True)
        self.left = stop_at

    def features(self, model, rows, order=None):
        self.left -= order is not None
        if order is not None and self.left == 0:
            raise StoppedError
        return super().features(model, rows, order)


def fitted(folder=None, stop_at=0, labels=LABELS, seed=0, **options):
    """The weights and history after a fit; the model starts from its own weights each time."""
    model = FusionModel("attention_pooling", CLASS_NAMES, *random_backbones(SHAPES["tiny"]))
    config = TrainConfig(dataset="x", out="x", **{**OPTIONS, **options})
    done = fit(model, StoppingInputs(stop_at), labels, SPLIT, config, seed, lambda _: None, checkpoints=folder)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, done


@pytest.fixture(scope="module")
def whole():
    torch.set_num_threads(1)
    return fitted()


def assert_same_bits(weights, expected):
    assert weights.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


@pytest.mark.parametrize(("stop_at", "every_s"), [(1, 0), (2, 0), (9, 0), (16, 0), (23, 0), (9, 1000), (20, 1000)])
def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, whole, stop_at, every_s):
    with pytest.raises(StoppedError):
        fitted(tmp_path, stop_at, checkpoint_every_s=every_s)
    weights, done = fitted(tmp_path, checkpoint_every_s=every_s)
    assert_same_bits(weights, whole[0])
    assert done == whole[1]


@pytest.mark.parametrize("options", [{"is_frozen": True}, {"lora": 2}, {"image_layers": 1, "text_layers": 0}])
def test_so_does_one_that_trains_only_a_part(tmp_path, options):
    expected, done = fitted(**options)
    with pytest.raises(StoppedError):
        fitted(tmp_path, 11, checkpoint_every_s=0, **options)
    weights, again = fitted(tmp_path, checkpoint_every_s=0, **options)
    assert_same_bits(weights, expected)
    assert again == done


def test_a_resumed_fit_does_not_repeat_what_was_done(tmp_path):
    with pytest.raises(StoppedError):
        fitted(tmp_path, 17, checkpoint_every_s=0)  # 4 steps of 2 parts are an epoch: stopped in the third epoch
    asked = []

    class Counting(StoppingInputs):
        def features(self, model, rows, order=None):
            asked.extend([order[1]] if order is not None else [])
            return super().features(model, rows, order)

    model = FusionModel("attention_pooling", CLASS_NAMES, *random_backbones(SHAPES["tiny"]))
    config = TrainConfig(dataset="x", out="x", **OPTIONS, checkpoint_every_s=0)
    fit(model, Counting(0), LABELS, SPLIT, config, 0, lambda _: None, checkpoints=tmp_path)
    assert asked == [2] * 8


def _run_to_the_end(folder, target):
    torch.set_num_threads(1)
    weights, _ = fitted(folder, checkpoint_every_s=0)
    save_file(weights, target)


def test_a_fit_killed_at_random_moments_ends_with_the_bits_of_one_that_was_not(tmp_path, whole):
    """SIGKILL, several times, each time after a moment that nobody chose; the checkpoint is never half written."""
    target, checkpoint = tmp_path / "weights.safetensors", tmp_path / "checkpoints" / FILE_NAME
    rng = random.Random(time.time_ns())
    n_kills, moments = 0, []
    while not target.exists():
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = multiprocessing.get_context("fork").Process(target=_run_to_the_end, args=(checkpoint.parent, target))
        process.start()
        if n_kills < 4:
            while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns != before) and process.is_alive():
                time.sleep(0.001)
            moments.append(rng.random() / 20)
            time.sleep(moments[-1])
            os.kill(process.pid, signal.SIGKILL)
            n_kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert n_kills >= 2, moments
    assert_same_bits(load_file(target), whole[0])


@pytest.mark.parametrize(
    "change", [{"lr": 0.5}, {"seed": 1}, {"labels": np.roll(LABELS, 1)}, {"imbalance": "none"}, {"ema": 0.0}]
)
def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path, change):
    with pytest.raises(StoppedError):
        fitted(tmp_path, 9, checkpoint_every_s=0)
    with pytest.raises(UserError) as raised:
        fitted(tmp_path, **change)
    assert str(raised.value) == (
        f"the checkpoint {tmp_path / FILE_NAME} belongs to other data or settings than are given now\n"
        f"  fix: give those that it was begun with, or delete {tmp_path} to begin this run again"
    )


@pytest.mark.parametrize("setting", [*MAY_CHANGE, *MAY_COME])
def test_what_an_experiment_lets_change_or_come_does_not_end_a_fit_under_way(setting):
    values = {
        "dataset": "moved",
        "revision": "a" * 40,
        "image_revision": "main",
        "text_revision": "main",
        "out": "elsewhere",
        "images": "photographs",
        "models": ("concat",),
        "controls": ("empty_text",),
        "control_models": ("concat",),
        "recipe": "paper",
        "recipe_overrides": ("lr",),
        "n_seeds": 7,
        "protocol": "clean",
        "device": "cuda",
        "n_jobs": 2,
        "accumulate": 3,
        "checkpoint_every_s": 7.0,
        "second_image_backbone": "facebook/dinov2-small",
        "second_image_revision": "main",
        "image_features_of": "CLIP",
        "text_features_of": "DINOv2",
    }
    before = TrainConfig(dataset="x", out="x", is_frozen=True)
    after = TrainConfig.model_validate({**before.model_dump(), setting: values[setting]})
    assert after != before
    weights = {"weight": torch.zeros(2)}
    keys = {key_of("concat", weights, LABELS, SPLIT, each, 0, "data") for each in (before, after)}
    assert len(keys) == 1


def test_every_other_setting_of_a_fit_ends_it():
    before = TrainConfig(dataset="x", out="x")
    weights = {"weight": torch.zeros(2)}
    key = key_of("concat", weights, LABELS, SPLIT, before, 0, "data")
    same = key_of("concat", weights, LABELS, SPLIT, before.model_copy(update={"epochs": before.n_epochs}), 0, "data")
    assert same == key  # the default, spelled out
    for setting in sorted(set(TrainConfig.model_fields) - {*MAY_CHANGE, *MAY_COME}):
        changed = before.model_copy(update={setting: 13 if setting == "epochs" else "another"})
        with warnings.catch_warnings(action="ignore"):  # of pydantic, about words where numbers are
            assert key_of("concat", weights, LABELS, SPLIT, changed, 0, "data") != key, setting


def test_a_batch_may_be_cut_into_other_parts_when_a_fit_goes_on(tmp_path):
    with pytest.raises(StoppedError):
        fitted(tmp_path, 9, checkpoint_every_s=0)
    _, done = fitted(tmp_path, accumulate=4)
    assert done.accumulate == 4


def test_a_damaged_checkpoint_says_so(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"half")
    with pytest.raises(UserError, match=r"is damaged: .*\n  fix: delete .* to begin this run again"):
        fitted(tmp_path)


def test_a_checkpoint_is_one_safetensors_file(tmp_path):
    with pytest.raises(StoppedError):
        fitted(tmp_path, 11, checkpoint_every_s=0)
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]
    kinds = {name.split("/")[0] for name in load_file(tmp_path / FILE_NAME)}
    assert kinds == {"weights", "average", "best", "optimizer", "loss_sum"}


def test_frozen_heads_write_none_before_their_time(tmp_path):
    fitted(tmp_path, is_frozen=True)
    assert list(tmp_path.iterdir()) == []
