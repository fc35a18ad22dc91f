"""train/mapped.py: a full disk is told before a mapped file is begun, by everything that writes one."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from builders.errors import UserError
from train import mapped
from train.experiment import run
from train.mapped import new_array, precision_of


@pytest.fixture
def full_disk(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 700))


def test_a_new_array_holds_zeros_and_is_a_file_that_numpy_reads(tmp_path):
    array = new_array(tmp_path / "a.npy", (3, 2), np.float16, "a test")
    array[1] = 7
    array.flush()
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 0], [7, 7], [0, 0]]


def test_large_arrays_are_kept_in_half_precision(monkeypatch):
    monkeypatch.setattr(mapped, "_FLOAT32_BYTES", 40)
    assert [precision_of(shape).name for shape in ((2, 5), (2, 6))] == ["float32", "float16"]


@pytest.mark.usefixtures("full_disk")
def test_an_array_that_the_disk_cannot_hold_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(UserError) as raised:
        new_array(tmp_path / "a.npy", (100, 100, 1000), np.uint8, "the cache of a test", "buy a disk")
    assert str(raised.value) == (
        f"{tmp_path} has 0.00 MB free, and the cache of a test takes 0.01 GB\n  fix: buy a disk"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full_disk", "one_thread")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"models": ("image_only",)}, "the cache of packed pixels"),
        ({"models": ("text_only",)}, "the cache of text features"),
        ({"models": ("text_only",), "is_frozen": False, "head_epochs": 1, "max_text_tokens": 64}, None),
    ],
)
def test_an_experiment_on_a_full_disk_says_what_does_not_fit(experiment_config, options, what):
    settings = experiment_config(**options)
    if what is None:  # a text's pooled vector is kept in memory, and no token
        run(settings)
        return
    with pytest.raises(UserError, match=f"has 0.00 MB free, and {what} takes .* MB\n  fix: make room"):
        run(settings)
