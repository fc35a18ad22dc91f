"""bench train: what it measures it measures for real; figures are kept, timings are never asserted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from builders.errors import UserError
from builders.files import read_json
from train.bench.bare import BareLoop
from train.bench.job import BenchConfig, bench_train
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.bench.trainer import N_READ_AHEAD, TrainerLoop
from train.bench.turns import N_WARM_UP
from train.config import TrainConfig
from train.data import Split
from train.inputs import LiveInputs
from train.loop import fit
from train.model import FusionModel

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = {"system": "Linux", "n_cores": 2, "memory_gib": 8.0, "gpus": []}


def config(tmp_path, **options):
    settings = {"shape": "tiny", "batch_size": 4, "n_steps": 2, "n_rounds": 2, "n_accuracy_seeds": 1, **options}
    return BenchConfig(out=tmp_path / "train", accuracy_epochs=1, **settings)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the Trainer and of accelerate, about themselves
def test_every_loop_takes_its_turns_and_the_ratios_follow_from_the_rounds(tmp_path):
    result = bench_train(config(tmp_path), "vl-dermnet bench train --out train", MACHINE, "2026-01-02T03:04:05Z")
    assert read_json(tmp_path / "train.json") == result
    rounds = result["round_seconds"]
    assert set(rounds) == {"ours", "bare", "trainer", "image_only", "text_only"}
    assert {len(seconds) for seconds in rounds.values()} == {2}
    assert result["ratios"]["ours_to_bare"]["median"] == pytest.approx(
        np.median(np.divide(rounds["bare"], rounds["ours"]))
    )
    assert set(result["accuracy"][0]) == {"ours", "trainer"}
    page = (tmp_path / "train.md").read_text()
    assert f"| ours ÷ bare, steps/s | {result['ratios']['ours_to_bare']['median']:.3f} |" in page
    assert "| seed | ours | Trainer |" in page
    assert "both with their last weights" in page


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_trainer_gets_the_crops_that_our_loop_gets_in_each_epoch(tmp_path):
    shape = SHAPES["tiny"]
    pixels, texts, labels, split = learnable_data(shape, 30)
    train = split.train[:10]  # batches of 4, 4 and 2
    cpu = torch.device("cpu")
    settings = TrainConfig(dataset="x", out=tmp_path, epochs=3, batch_size=4)
    seen = {"ours": set(), "trainer": set()}

    class Watched(FusionModel):
        """A model that notes the pixels of every training batch."""

        whose = "ours"

        def encode(self, pixels, token_ids, text_mask, n_rows):
            if self.training and torch.is_grad_enabled():
                seen[self.whose] |= {image.numpy().tobytes() for image in pixels}
            return super().encode(pixels, token_ids, text_mask, n_rows)

    inputs = LiveInputs(pixels, texts, cpu, is_augmented=True)
    ours, theirs = (Watched("concat", CLASS_NAMES, *random_backbones(shape)) for _ in range(2))
    theirs.whose = "trainer"
    fit(ours, inputs, labels, Split(train, split.validation, split.test), settings, 0, lambda _: None)
    TrainerLoop(theirs, inputs, labels, train, settings, 0).run(n_steps=9)
    assert seen["ours"] == seen["trainer"]
    assert len(seen["ours"]) > 2 * len(train)  # so they are not those of one epoch


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_while_its_clock_runs_the_trainer_makes_as_many_batches_as_it_takes_steps(tmp_path, monkeypatch):
    n_steps, size = 4, 2
    shape = SHAPES["tiny"]
    pixels, texts, labels, _ = learnable_data(shape, (N_WARM_UP + n_steps + N_READ_AHEAD) * size)
    settings = TrainConfig(dataset="x", out=tmp_path, batch_size=size)
    inputs = LiveInputs(pixels, texts, torch.device("cpu"), is_augmented=True)
    model = FusionModel("concat", CLASS_NAMES, *random_backbones(shape))
    loop = TrainerLoop(model, inputs, labels, np.arange(len(labels)), settings, 0)
    monkeypatch.setattr("train.bench.trainer.time", SimpleNamespace(perf_counter=lambda: loop.n_collated))
    assert loop.run(n_steps, N_WARM_UP, n_behind=1) == n_steps


def test_an_unknown_shape_is_named_with_those_that_exist(tmp_path):
    with pytest.raises(UserError, match="unknown shape 'huge'; choose one of: base, light, mini, small, tiny"):
        bench_train(config(tmp_path, shape="huge"), "", MACHINE, "")


def test_the_operations_of_a_step_are_three_times_those_of_a_forward_pass():
    shape = SHAPES["tiny"]
    loop = BareLoop("concat", shape, TrainConfig(dataset="x", out="x", batch_size=4), torch.device("cpu"))
    block = 4 * shape.dim**2 + 2 * 4 * shape.dim**2  # multiplications per token
    image_tokens, text_tokens = (shape.image_px // shape.patch_px) ** 2 + 1, shape.n_text_tokens
    attention = sum(2 * n * n * shape.dim for n in (image_tokens, text_tokens)) * shape.n_layers
    patches = (image_tokens - 1) * 3 * shape.patch_px**2 * shape.dim
    forward = 2 * 4 * (block * shape.n_layers * (image_tokens + text_tokens) + attention + patches)
    assert loop.flops() == pytest.approx(3 * forward, rel=0.1)


def test_the_made_up_data_tells_by_either_modality_and_not_always():
    _, texts, labels, split = learnable_data(SHAPES["tiny"], 2000)
    told = texts.token_ids[:, 1] - 2 == labels
    assert 0.45 < told.mean() < 0.65
    assert set(labels) == set(range(len(CLASS_NAMES)))
    assert len(set(split.train) | set(split.validation) | set(split.test)) == 2000
