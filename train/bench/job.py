"""`vl-dermnet bench train`: what the loop adds to a bare one, beside the `Trainer`, and what pooling costs."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from builders.errors import choose
from builders.files import with_ending, write_atomic, write_json
from train.bench.bare import BareLoop
from train.bench.report import as_markdown
from train.bench.shapes import CLASS_NAMES, SHAPES, Shape, learnable_data, random_backbones
from train.bench.trainer import TrainerLoop
from train.bench.turns import FUSION, ratio, take_turns
from train.config import TrainConfig
from train.heap import keep_freed_memory
from train.inputs import LiveInputs
from train.loop import fit, predict_logits
from train.metrics import accuracy
from train.model import FusionModel

# Dense bf16 operations per second, from the vendor's data sheets; by words of the device's name, the first that fit.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L4": 121e12,
}
LIBRARIES = ("vl-dermnet", "torch", "transformers", "accelerate")


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """`out` without an ending; a round is `n_steps` of each contender, `n_rounds` are counted and one is not."""

    out: Path
    shape: str
    batch_size: int
    n_steps: int
    n_rounds: int
    n_accuracy_seeds: int
    accuracy_epochs: int


def bench_train(bench: BenchConfig, command: str, machine: dict[str, Any], at: str) -> dict[str, Any]:
    """Measure, and write OUT.json and OUT.md; returns what the JSON holds."""
    choose("shape", bench.shape, list(SHAPES))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = SHAPES[bench.shape]
    config = TrainConfig(
        dataset="random", out=bench.out, epochs=bench.n_rounds + 1, batch_size=bench.batch_size,
        is_bf16=device.type == "cuda",
    )  # fmt: skip
    keeps = keep_freed_memory(device)
    loops = take_turns(shape, config, device, bench.n_steps)
    flops = BareLoop(FUSION, shape, config, device).flops()
    steps_per_s = bench.n_steps / median(loops["ours"])
    gpu, peak = gpu_of(device)
    result: dict[str, Any] = {
        "command": command,
        "at": at,
        "machine": {**machine, "gpus": [gpu] if gpu else []},
        "versions": {name: version(name) for name in LIBRARIES},
        "settings": {
            "fusion": FUSION,
            "shape": {name: getattr(shape, name) for name in Shape.__slots__},
            "batch_size": bench.batch_size,
            "steps_per_round": bench.n_steps,
            "rounds": bench.n_rounds,
            "bf16": config.is_bf16,
            "threads": torch.get_num_threads(),
            "keeps_freed_memory": keeps,
        },
        "round_seconds": loops,
        "steps_per_s": {name: bench.n_steps / median(seconds) for name, seconds in loops.items()},
        "images_per_s": steps_per_s * bench.batch_size,
        "flops_per_step": flops,
        "mfu": None if peak is None else flops * steps_per_s / peak,
        "ratios": {
            "ours_to_bare": ratio(loops["bare"], loops["ours"]),
            "ours_to_trainer": ratio(loops["trainer"], loops["ours"]),
            "attention_pooling_to_both_alone": ratio(
                loops["bare"], [a + b for a, b in zip(loops["image_only"], loops["text_only"], strict=True)]
            ),
        },
        "accuracy_of": "last weights",
        "accuracy": [_accuracies(seed, bench, device) for seed in range(bench.n_accuracy_seeds)],
    }
    write_json(with_ending(bench.out, ".json"), result)
    write_atomic(with_ending(bench.out, ".md"), lambda part: part.write_text(as_markdown(result), encoding="utf-8"))
    return result


def gpu_of(device: torch.device) -> tuple[str, float | None]:
    """The GPU's name, empty on a CPU, and its peak in bf16 where the data sheet is known."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    words = set(re.findall(r"\w+", gpu))  # L4 is no word of L40S
    return gpu, next((peak for name, peak in PEAK_FLOPS.items() if words.issuperset(name.split())), None)


def default_shape() -> str:
    """The shape that this machine is measured with."""
    return "base" if torch.cuda.is_available() else "small"


def _accuracies(seed: int, bench: BenchConfig, device: torch.device) -> dict[str, float]:
    """Test accuracy of our loop and of the `Trainer`, each with its last weights, after the same epochs and crops from
    the same first weights. Choosing an epoch is no part of the `Trainer`'s loop, so ours does not choose one either."""
    shape = SHAPES["mini"]
    pixels, texts, labels, split = learnable_data(shape, 1500, seed)
    inputs = LiveInputs(pixels, texts, device, is_augmented=True)
    settings: dict[str, Any] = {"epochs": bench.accuracy_epochs, "batch_size": 32, "image_lr": 1e-3, "text_lr": 1e-3}
    config = TrainConfig(dataset="random", out=bench.out, **settings)
    found: dict[str, float] = {}
    for name in ("ours", "trainer"):
        torch.manual_seed(seed)
        model = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape, seed)).to(device)
        if name == "ours":
            fit(model, inputs, labels, split, config, seed, lambda _: None, chooses=False)
        else:
            n_steps = -(-len(split.train) // config.batch_size) * config.n_epochs
            TrainerLoop(model, inputs, labels, split.train, config, seed).run(n_steps)
        logits = predict_logits(model, inputs, split.test, 64)
        found[name] = accuracy(labels[split.test], logits.argmax(axis=1))
    return found
