"""train --refit: the second fit, on train and validation together, is continued after a kill as the first one is."""

import multiprocessing
import os
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from builders.build import BuildConfig, build
from builders.errors import UserError
from train.checkpoint import FILE_NAME
from train.config import TrainConfig
from train.experiment import run

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "concat-official-0"


@pytest.fixture
def config(tmp_path, photographs, make_run, backbones, private_cache):
    """A function that gives a config whose fits are saved after every step; dropout and averages take part."""
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))

    def make(**options):
        settings = {
            "dataset": str(tmp_path / "dataset"),
            "image_backbone": str(backbones / "vit"),
            "text_backbone": str(backbones / "bert"),
            "models": ("concat",),
            "n_seeds": 1,
            "protocol": "official",
            "epochs": 4,  # of three steps: 19 rows of train and validation in batches of 8
            "batch_size": 8,
            "ema": 0.5,
            "modality_dropout": 0.3,
            "is_refit": True,
            "checkpoint_every_s": 0.0,
        }
        return TrainConfig.model_validate(settings | options)

    return make


def weights_of(folder):
    """Every weight of the trained model, by file and name."""
    files = sorted((folder / "models" / NAME).rglob("*.safetensors"))
    return {(file.parent.name, name): value for file in files for name, value in load_file(file).items()}


def _run(config):
    torch.set_num_threads(1)
    run(config)


def kill_in_the_second_fit(config, n_writes):
    """SIGKILL, after its checkpoint was written for the n-th time."""
    checkpoint = config.out / "checkpoints" / NAME / "refit" / FILE_NAME
    process = multiprocessing.get_context("fork").Process(target=_run, args=(config,))
    process.start()
    seen = set()
    while len(seen) < n_writes and process.is_alive():
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return checkpoint


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_second_fit_that_was_killed_goes_on_and_ends_with_the_bits_of_one_that_was_not(tmp_path, config, is_frozen):
    whole = run(config(out=tmp_path / "whole", is_frozen=is_frozen)).folder
    settings = config(out=tmp_path / "killed", is_frozen=is_frozen)
    checkpoint = kill_in_the_second_fit(settings, 2)
    assert not (settings.out / "predictions").exists()

    damaged = tmp_path / "damaged"  # so that it is seen to be read, not passed by
    shutil.copytree(settings.out, damaged)
    (damaged / checkpoint.relative_to(settings.out)).write_bytes(b"half")
    with pytest.raises(UserError, match=r"refit/checkpoint\.safetensors is damaged"):
        run(config(out=damaged, is_frozen=is_frozen))

    run(settings)
    killed, expected = weights_of(settings.out), weights_of(whole)
    assert killed.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(killed[name], expected[name])] == []
    assert not (settings.out / "checkpoints" / NAME).exists()


def test_a_second_fit_under_way_holds_an_experiment_to_its_settings(tmp_path, config):
    settings = config(out=tmp_path / "killed", is_frozen=True)
    checkpoint = kill_in_the_second_fit(settings, 1)
    (checkpoint.parent.parent / FILE_NAME).unlink(missing_ok=True)  # frozen heads need not have one
    with pytest.raises(UserError, match=r"holds an experiment with another lr: there 0\.001, now 0\.5"):
        run(config(out=tmp_path / "killed", is_frozen=True, lr=0.5))
