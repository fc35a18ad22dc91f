"""`vl-dermnet bench frozen`: how long `train --frozen` takes for the paper's rows on a set of DermNet's size.

Features are made up, of the widths and numbers of tokens that real encoders give, in files as `train` caches them;
what is measured is `train`'s own loop with its own settings, as many fits at once as `train --jobs`. What was measured
is kept, fit by fit.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from builders.errors import UserError
from builders.files import read_json, with_ending, write_atomic, write_json
from builders.index import n_cores
from builders.workers import WorkerDiedError, unordered_map
from train.config import PAPER_MODELS, TrainConfig
from train.data import Split
from train.device import threads_for
from train.given_tower import GivenFeatures
from train.heap import keep_freed_memory
from train.inputs import CachedInputs
from train.loop import fit, predict_logits
from train.matrix import longest_first
from train.metrics import accuracy
from train.model import FusionModel

LIBRARIES = ("vl-dermnet", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class FrozenBench:
    """The set: rows as DermNet's, tokens as DINOv2-S gives at 224 px and a text encoder at 128, 384 dimensions each."""

    out: Path
    n_train: int = 15_557
    n_test: int = 4_002
    n_classes: int = 23
    n_seeds: int = 5
    n_image_tokens: int = 257
    n_text_tokens: int = 128
    dim: int = 384
    epochs: int | None = None
    batch_size: int = 32
    lr: float = 1e-3
    n_jobs: int = 1


def bench_frozen(
    bench: FrozenBench, command: str, machine: dict[str, Any], at: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure what is not measured yet; write OUT.json and OUT.md and return what the JSON holds."""
    json_file = with_ending(bench.out, ".json")
    settings = {**asdict(bench), "out": None, "n_seeds": None}
    known: dict[str, Any] = read_json(json_file) if json_file.exists() else {}
    before = {"batch_size": 32, "lr": 1e-3} | known.get("settings", {})  # older figures do not tell these
    if known and before != settings:
        raise UserError(f"{json_file} holds figures of other settings: {known.get('settings')}", "choose another --out")
    fits: dict[str, dict[str, Any]] = known.get("fits", {})
    config = _config(bench)
    result: dict[str, Any] = {
        "command": command,
        "at": at,
        "machine": machine,
        "versions": {library: version(library) for library in LIBRARIES},
        "settings": settings,
        "epochs": config.n_epochs,
        "batch_size": config.batch_size,
        "wall_s": known.get("wall_s", 0.0),
        "fits": fits,
    }
    asked = longest_first(
        [(name, seed) for seed in range(bench.n_seeds) for name in PAPER_MODELS], lambda each: each[0]
    )
    asked = [(name, seed) for name, seed in asked if f"{name}-{seed}" not in fits]
    with tempfile.TemporaryDirectory() as folder:
        say("writing features")
        _make_up(bench, Path(folder))
        before_s, began_s = result["wall_s"], time.perf_counter()

        fit_one = _Fit(bench, Path(folder))
        for (name, seed), fitted in unordered_map(fit_one, asked, bench.n_jobs):
            if isinstance(fitted, WorkerDiedError):
                raise UserError(f"process after process died while it fitted {name}", "fewer --jobs")
            say(f"{name}, seed {seed}: {fitted['seconds']:.1f} s")
            fits[f"{name}-{seed}"] = fitted
            result["wall_s"] = before_s + time.perf_counter() - began_s
            write_json(json_file, result)
    write_json(json_file, result)
    page = as_markdown(result)
    write_atomic(with_ending(bench.out, ".md"), lambda part: part.write_text(page, encoding="utf-8"))
    return result


def _config(bench: FrozenBench) -> TrainConfig:
    return TrainConfig(
        dataset="random",
        out=bench.out,
        is_frozen=True,
        device="cpu",
        epochs=bench.epochs,
        batch_size=bench.batch_size,
        lr=bench.lr,
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a process does with a row and a seed; what it needs is read once."""

    bench: FrozenBench
    folder: Path

    def __call__(self, asked: tuple[str, int]) -> dict[str, Any]:
        return _fit(*asked, self.bench, *_read(self.bench, self.folder))


def _fit(
    name: str,
    seed: int,
    bench: FrozenBench,
    inputs: CachedInputs,
    labels: npt.NDArray[np.int64],
    split: Split,
) -> dict[str, Any]:
    """One fit from first step to the test's logits, and its accuracy: that something was learned."""
    towers = (GivenFeatures(("image",), bench.dim), GivenFeatures(("text",), bench.dim))
    model = FusionModel(name, tuple(f"class {number}" for number in range(bench.n_classes)), *towers)
    config = _config(bench)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with threads_for(model, inputs, config, inputs.device):
        fit(model, inputs, labels, split, config, seed, lambda _: None)
        logits = predict_logits(model, inputs, split.test, config.batch_size)
    return {
        "seconds": time.perf_counter() - began_s,
        "cpu_seconds": time.process_time() - began_cpu_s,
        "accuracy": accuracy(labels[split.test], logits.argmax(axis=1)),
    }


def _make_up(bench: FrozenBench, folder: Path) -> None:
    """Noise around a mean per class, in half precision as `train` keeps a set of this size; texts differ in length."""
    rng = np.random.default_rng(0)
    n_rows = bench.n_train + bench.n_test
    labels = rng.integers(0, bench.n_classes, n_rows)
    for kind, n_tokens in (("image", bench.n_image_tokens), ("text", bench.n_text_tokens)):
        means = rng.normal(0, 0.2, (bench.n_classes, 1, bench.dim)).astype(np.float32)
        shape, path = (n_rows, n_tokens, bench.dim), folder / f"{kind}.npy"
        tokens = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        pooled = np.empty((n_rows, bench.dim), dtype=np.float32)
        for start in range(0, n_rows, 512):
            rows = slice(start, min(start + 512, n_rows))
            some = rng.standard_normal((rows.stop - start, n_tokens, bench.dim), dtype=np.float32) + means[labels[rows]]
            tokens[rows], pooled[rows] = some, some[:, 0]
        tokens.flush()
        np.save(folder / f"{kind}-pooled.npy", pooled)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "lengths.npy", rng.integers(bench.n_text_tokens // 2, bench.n_text_tokens + 1, n_rows))


@cache
def _read(bench: FrozenBench, folder: Path) -> tuple[CachedInputs, npt.NDArray[np.int64], Split]:
    """What was made up, once in each process: features that are memory-mapped, labels, and rows to train, choose and
    test on; and from then on this process has its share of the cores."""
    torch.set_num_threads(max(1, n_cores() // bench.n_jobs))
    keep_freed_memory(torch.device("cpu"))
    image, text = (
        (np.load(folder / f"{kind}.npy", mmap_mode="r"), np.load(folder / f"{kind}-pooled.npy"))
        for kind in ("image", "text")
    )
    mask = np.arange(bench.n_text_tokens) < np.load(folder / "lengths.npy")[:, None]
    rows, n_validation = np.arange(bench.n_train + bench.n_test), bench.n_train // 10
    split = Split(rows[n_validation : bench.n_train], rows[:n_validation], rows[bench.n_train :])
    return CachedInputs(image, text, mask, torch.device("cpu")), np.load(folder / "labels.npy"), split


def as_markdown(result: dict[str, Any]) -> str:
    """A page: seconds of each row, and of all."""
    host, settings, fits = result["machine"], result["settings"], result["fits"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    n_jobs = settings["n_jobs"]
    together = "one fit after the other" if n_jobs == 1 else f"{n_jobs} fits at once, each in a process"
    lines = [
        "# train --frozen: how long the paper's rows take",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB; {versions}.",
        f"{settings['n_train']:,} train rows, a tenth of them for validation, {settings['n_test']:,} test rows, "
        f"{settings['n_classes']} classes; made-up features of {settings['dim']} dimensions, "
        f"{settings['n_image_tokens']} image and up to {settings['n_text_tokens']} text tokens, memory-mapped. "
        f"{result['epochs']} epochs, batches of {result['batch_size']}, learning rate {settings['lr']}, {together}.",
        "",
        "| row | fits | seconds each | CPU seconds each | test accuracy on made-up data |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in PAPER_MODELS:
        row = [each for key, each in fits.items() if key.rpartition("-")[0] == name]
        means = [sum(each[what] for each in row) / len(row) for what in ("seconds", "cpu_seconds", "accuracy")]
        lines.append(f"| {name} | {len(row)} | {means[0]:.1f} | {means[1]:.1f} | {means[2]:.3f} |")
    lines += ["", f"{len(fits)} fits in {result['wall_s'] / 60:.1f} minutes, features not counted."]
    return "\n".join(lines) + "\n"
