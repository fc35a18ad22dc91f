"""bench train --gpu: each figure written as it comes, failures told, on a model small enough for a CPU."""

import pytest
import torch

from builders.errors import UserError
from train.bench import gpu
from train.bench.gpu import GpuBench, bench_gpu
from train.bench.job import gpu_of
from train.bench.shapes import SHAPES

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = {"system": "Linux", "n_cores": 2, "memory_gib": 8.0, "gpus": []}


def bench(tmp_path, **changes):
    settings = {"shape": "tiny", "batches": (2, 4), "n_steps": 2, "n_rounds": 1, "n_train": 20, "n_features": 3}
    return GpuBench(out=tmp_path / "gpu", **{**settings, **changes})


@pytest.fixture
def steps(monkeypatch):
    """A function in place of the loops, which would take minutes; the batches that it was asked about."""
    asked = []

    def made_up(config, shape, device, n_steps, peak):
        asked.append((config.batch_size, config.is_compiled))
        if config.is_compiled and config.batch_size in made_up.too_large:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        middle = {"median": 0.98, "least": 0.9, "greatest": 1.0}
        return {
            "batch_size": config.batch_size,
            "is_compiled": config.is_compiled,
            "images_per_s": 10.0 * config.batch_size,
            "mfu": 0.4,
            "peak_mb": 1234.0,
            "ours_to_bare": middle,
            "ours_to_trainer": middle,
            "attention_pooling_to_both_alone": middle,
        }

    made_up.too_large = {4}
    made_up.asked = asked
    monkeypatch.setattr(gpu, "_steps", made_up)
    return made_up


def test_what_fails_costs_no_other_and_is_tried_again_and_what_is_measured_is_kept(tmp_path, steps):
    result = bench_gpu(bench(tmp_path), "vl-dermnet bench train --gpu", MACHINE, "now", say=lambda _: None)
    assert list(result["cases"]) == [
        "steps, batch 2",
        "steps, batch 4",
        "steps, batch 2, compiled",
        "steps, batch 4, compiled",
        "epoch",
        "features",
    ]
    page = (tmp_path / "gpu.md").read_text()
    assert (
        "| 4 | no | 40.0 | 40.0% | 1,234 | 0.980 (0.900 – 1.000), met | 0.980 (0.900 – 1.000), not met | 0.980" in page
    )
    assert "÷ bare ≥ 0.95, ÷ Trainer ≥ 1.00, pooling ÷ both alone ≤ 1.05." in page
    assert "- steps, batch 4, compiled: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB." in page
    epoch, features = result["cases"]["epoch"], result["cases"]["features"]
    assert (epoch["batch_size"], epoch["n_train"], epoch["n_validation"]) == (4, 18, 2)
    assert len(epoch["epoch_seconds"]) == 2
    assert (features["n"], features["px"]) == (3, 224)
    assert "Frozen features of 3 packed images of 224 px (DINOv2-S, random), to their file:" in page
    steps.asked.clear()
    steps.too_large = set()
    again = bench_gpu(bench(tmp_path), "again", MACHINE, "now", say=lambda _: None)
    assert steps.asked == [(4, True)]
    assert again["cases"]["epoch"] == epoch
    with pytest.raises(UserError, match="holds figures of other settings"):
        bench_gpu(bench(tmp_path, n_steps=3), "", MACHINE, "", say=lambda _: None)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
    ],
)
def test_a_peak_is_that_of_the_whole_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert gpu_of(torch.device("cuda")) == (name, peak)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the Trainer and of accelerate, about themselves
def test_the_loops_take_their_turns(tmp_path):
    device = torch.device("cpu")
    config = gpu._config(bench(tmp_path), 2, False, device)
    case = gpu._steps(config, SHAPES["tiny"], device, 2, peak=1e12)
    assert set(case["round_seconds"]) == {"ours", "bare", "trainer", "image_only", "text_only"}
    assert case["ours_to_bare"]["median"] > 0
    assert 0 < case["mfu"] < 1
    assert case["peak_mb"] is None
