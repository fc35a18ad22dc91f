"""`vl-dermnet bench train --gpu`: batches with and without `torch.compile`, an epoch of DermNet's size, features.

Every figure is written as soon as it is there, and is not measured again by the next call. What fails, such as a batch
that does not fit, is written with its reason.
"""

import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from builders.errors import UserError, choose
from builders.files import read_json, with_ending, write_atomic, write_json
from train.backbones import load_image_backbone
from train.bench.bare import BareLoop, wait_for
from train.bench.gpu_report import as_markdown
from train.bench.job import LIBRARIES, gpu_of
from train.bench.shapes import CLASS_NAMES, SHAPES, Shape, learnable_data, random_backbones, random_image_backbone
from train.bench.turns import FUSION, ratio, take_turns
from train.config import TrainConfig
from train.data import Split
from train.inputs import LiveInputs, cache_image_features
from train.loop import fit
from train.model import FusionModel

N_TRAIN, N_ALL = 15_557, 19_559  # DermNet's photographs
BATCHES = (32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class GpuBench:
    """What is measured: batches of each size, then an epoch over `n_train` packed images, features of `n_features`.

    `feature_backbone` is a folder or Hub id; None stands for DINOv2-S with made-up weights, which are as fast.
    """

    out: Path
    shape: str = "base"
    batches: tuple[int, ...] = BATCHES
    n_steps: int = 16
    n_rounds: int = 4
    n_train: int = N_TRAIN
    n_features: int = N_ALL
    feature_backbone: str | None = None


def bench_gpu(
    bench: GpuBench, command: str, machine: dict[str, Any], at: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure what is not measured yet; write OUT.json and OUT.md, and return what the JSON holds."""
    choose("shape", bench.shape, list(SHAPES))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape, (gpu, peak) = SHAPES[bench.shape], gpu_of(device)
    json_file = with_ending(bench.out, ".json")
    settings: dict[str, Any] = {
        "fusion": FUSION,
        "shape": {name: getattr(shape, name) for name in Shape.__slots__},
        "steps_per_round": bench.n_steps,
        "rounds": bench.n_rounds,
        "bf16": device.type == "cuda",
        "n_train": bench.n_train,
        "n_features": bench.n_features,
        "feature_backbone": Path(bench.feature_backbone).name if bench.feature_backbone else "DINOv2-S, random",
    }
    known: dict[str, Any] = read_json(json_file) if json_file.exists() else {}
    if known and known.get("settings") != settings:
        raise UserError(f"{json_file} holds figures of other settings: {known.get('settings')}", "choose another --out")
    cases: dict[str, dict[str, Any]] = known.get("cases", {})
    work: dict[str, Callable[[], dict[str, Any]]] = {
        f"steps, batch {batch}{', compiled' if is_compiled else ''}": lambda batch=batch, is_compiled=is_compiled: (
            _steps(_config(bench, batch, is_compiled, device), shape, device, bench.n_steps, peak)
        )
        for is_compiled in (False, True)
        for batch in bench.batches
    }
    work["epoch"] = lambda: _epoch(bench, shape, device, _fastest(cases))
    work["features"] = lambda: _features(bench, device)
    result: dict[str, Any] = {}
    for name, measure in work.items():
        if "failed" in cases.get(name, {"failed": ""}):
            say(name)
            cases[name] = _measured(measure, device)
        result = {
            "command": command,
            "at": at,
            "machine": {**machine, "gpus": machine["gpus"] or ([gpu] if gpu else [])},
            "versions": {library: version(library) for library in LIBRARIES},
            "settings": settings,
            "cases": cases,
        }
        write_json(json_file, result)
        page = as_markdown(result)
        write_atomic(with_ending(bench.out, ".md"), lambda part, page=page: part.write_text(page, encoding="utf-8"))
    return result


def _config(bench: GpuBench, batch_size: int, is_compiled: bool, device: torch.device) -> TrainConfig:
    return TrainConfig(
        dataset="random",
        out=bench.out,
        epochs=bench.n_rounds + 1,
        batch_size=batch_size,
        is_bf16=device.type == "cuda",
        is_compiled=is_compiled,
    )


def _measured(measure: Callable[[], dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """The figures, or why there are none; what was left on the GPU is given back either way."""
    try:
        return measure()
    except (RuntimeError, UserError) as error:  # out of memory, or no compiler on this machine
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _steps(config: TrainConfig, shape: Shape, device: torch.device, n_steps: int, peak: float | None) -> dict[str, Any]:
    """Ours beside a bare loop, the `Trainer` and single modalities, in turns; memory of one model alone."""
    peak_mb = _peak_mb(config, shape, device)
    loops = take_turns(shape, config, device, n_steps)
    plain = config.model_copy(update={"is_compiled": False})
    flops = BareLoop(FUSION, shape, plain, device).flops()
    steps_per_s = n_steps / median(loops["ours"])
    return {
        "batch_size": config.batch_size,
        "is_compiled": config.is_compiled,
        "round_seconds": loops,
        "images_per_s": steps_per_s * config.batch_size,
        "flops_per_step": flops,
        "mfu": None if peak is None else flops * steps_per_s / peak,
        "peak_mb": peak_mb,
        "ours_to_bare": ratio(loops["bare"], loops["ours"]),
        "ours_to_trainer": ratio(loops["trainer"], loops["ours"]),
        "attention_pooling_to_both_alone": ratio(
            loops["bare"], [a + b for a, b in zip(loops["image_only"], loops["text_only"], strict=True)]
        ),
    }


def _peak_mb(config: TrainConfig, shape: Shape, device: torch.device) -> float | None:
    """The greatest GPU memory of three steps of one model with its optimizer; None on a CPU."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    BareLoop(FUSION, shape, config, device).run(3)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _fastest(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of what was measured, the batch and compilation with the most images per second."""
    measured = [case for name, case in cases.items() if name.startswith("steps") and "failed" not in case]
    if not measured:
        raise UserError("no batch size could be measured, so none can be chosen for an epoch")
    return max(measured, key=lambda case: case["images_per_s"])


def _epoch(bench: GpuBench, shape: Shape, device: torch.device, fastest: dict[str, Any]) -> dict[str, Any]:
    """Whole epochs as `train` runs them, from packed pixels on disk: augmented train rows, then validation."""
    n_rows, n_validation = bench.n_train, max(1, bench.n_train // 10)
    _, texts, labels, _ = learnable_data(shape, n_rows, with_pixels=False)
    config = _config(bench, fastest["batch_size"], fastest["is_compiled"], device)
    config = config.model_copy(update={"epochs": 3})
    rows = np.arange(n_rows)
    split = Split(rows[n_validation:], rows[:n_validation], rows[:0])
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = LiveInputs(_packed(Path(folder), n_rows, shape.image_px), texts, device, is_augmented=True)
        model = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape)).to(device)

        def at_epoch(_: object) -> None:
            wait_for(device)
            moments.append(time.perf_counter())

        fit(model, inputs, labels, split, config, 0, at_epoch)
    return {
        "batch_size": config.batch_size,
        "is_compiled": config.is_compiled,
        "n_train": len(split.train),
        "n_validation": n_validation,
        "are_pixels_on_gpu": isinstance(inputs.pixels, torch.Tensor),
        "epoch_seconds": [later - earlier for earlier, later in pairwise(moments)],
    }


def _features(bench: GpuBench, device: torch.device) -> dict[str, Any]:
    """Frozen features of packed pixels, as `train --frozen` computes them once, to their file."""
    backbone = load_image_backbone(bench.feature_backbone) if bench.feature_backbone else random_image_backbone()
    backbone = backbone.to(device).eval()
    height_px, _ = backbone.pixels.crop_px
    with tempfile.TemporaryDirectory() as folder:
        pixels = _packed(Path(folder), bench.n_features, height_px)
        wait_for(device)
        began = time.perf_counter()
        cache_image_features(backbone, pixels, "bench", Path(folder), lambda _: None)
        seconds = time.perf_counter() - began
    return {"n": bench.n_features, "px": height_px, "seconds": seconds, "images_per_s": bench.n_features / seconds}


def _packed(folder: Path, n_images: int, side_px: int) -> Any:
    """Noise as packed pixels in a file, memory-mapped, as `train` packs photographs."""
    path = folder / "pixels.npy"
    packed = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_images, side_px, side_px, 3))
    rng = np.random.default_rng(0)
    for start in range(0, n_images, 256):
        some = packed[start : start + 256]
        some[:] = rng.integers(0, 256, some.shape, dtype=np.uint8)
    packed.flush()
    return np.load(path, mmap_mode="r")
