"""Index, build, audit and a second set on sample photographs, beside `datasets` imagefolder and a Pillow loop."""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from builders.bench.measured import Measured, run_measured
from builders.bench.photographs import link_smaller
from builders.bench.report import as_markdown
from builders.bench.scripted_run import write_scripted_run
from builders.bench.second_set import measure_second_set
from builders.errors import UserError
from builders.files import with_ending, write_atomic, write_json
from builders.index import n_cores
from builders.sample import write_sample

LIBRARIES = ("vl-dermnet", "datasets", "huggingface_hub", "hf-xet", "pyarrow", "pillow", "numpy")
SIZES = (1, 2, 4)  # of the audits, in `n_images`
LEAST_S = 0.5  # of the smallest audit's part, below which its growth is that of the clock
RIVALS = (sys.executable, "-m", "builders.bench.rivals")


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """`out` without an ending. `program` is the command line to measure, without arguments.

    Build and index are measured on `n_images`, `n_rounds` times in turns, the audit once each on 1, 2 and 4 times
    as many.
    """

    out: Path
    program: tuple[str, ...]
    n_images: int = 5000
    n_rounds: int = 3


def bench_build(
    config: BenchConfig,
    command: str,
    machine: dict[str, Any],
    at: str,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure, and write OUT.json and OUT.md; returns what the JSON holds."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        say(f"rendering {SIZES[-1] * config.n_images:,} photographs")
        write_sample(scratch / "sample", n_images=SIZES[-1] * config.n_images, seed=0)
        sizes = {size: scratch / f"photographs-{size}" for size in SIZES}
        n_files = {size: link_smaller(scratch / "sample", at, size * config.n_images) for size, at in sizes.items()}
        photographs = sizes[1]
        n_bytes = sum(path.stat().st_size for path in photographs.rglob("*") if path.is_file())
        result: dict[str, Any] = {
            "command": command,
            "at": at,
            "machine": machine,
            "versions": {library: version(library) for library in LIBRARIES},
            "settings": {"n_files": n_files[1], "n_bytes": n_bytes, "rounds": config.n_rounds, "cores": n_cores()},
            "build": _measure_build(config, photographs, scratch, say),
            "index": _measure_index(config, photographs, say),
            "second_set": measure_second_set(config.program, photographs, scratch / "index.parquet", scratch, say),
            "audit": _measure_audits(config, sizes, n_files, scratch, say),
        }
    write_json(with_ending(config.out, ".json"), result)
    write_atomic(with_ending(config.out, ".md"), lambda part: part.write_text(as_markdown(result), encoding="utf-8"))
    return result


def _measure_build(
    config: BenchConfig, photographs: Path, scratch: Path, say: Callable[[str], object]
) -> dict[str, Any]:
    """Our two commands and `datasets`, whole processes, in turns; medians of seconds, the greatest of the peaks."""
    index, run, ours, theirs, cache = (scratch / name for name in ("index.parquet", "run", "ours", "theirs", "cache"))
    folder = str(photographs)
    ways: dict[str, Sequence[str]] = {
        "index": (*config.program, "index", folder, "--out", str(index)),
        "build": (*config.program, "build", folder, "--run", str(run), "--out", str(ours), "--with-images"),
        "imagefolder": (*RIVALS, "imagefolder", folder, str(theirs), str(cache), "yes"),
        "imagefolder_paths": (*RIVALS, "imagefolder", folder, str(theirs), str(cache), "no"),
    }
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    written: dict[str, int] = {}
    for number in range(config.n_rounds):
        for name, words in ways.items():
            say(f"round {number + 1} of {config.n_rounds}: {name}")
            for made in (ours, theirs, cache):  # nobody finds what an earlier one left
                shutil.rmtree(made, ignore_errors=True)
            index.unlink(missing_ok=True) if name == "index" else None
            runs[name].append(run_measured(words))
            if name == "index" and not run.exists():
                write_scripted_run(run, index)
            made = {"index": index, "build": ours}.get(name, theirs)
            written[name] = sum(path.stat().st_size for path in (made, *made.rglob("*")) if path.is_file())
    rows = {name: _row(each) | {"mb_written": written[name] / 1e6} for name, each in runs.items()}
    pairs = list(zip(runs["index"], runs["build"], runs["imagefolder"], strict=True))
    peak = rows["imagefolder"]["peak_mb"]
    return {
        "ways": rows,
        "ratios": {
            "build_s": median(build.wall_s / theirs.wall_s for _, build, theirs in pairs),
            "index_and_build_s": median(
                (index.wall_s + build.wall_s) / theirs.wall_s for index, build, theirs in pairs
            ),
            "build_peak": rows["build"]["peak_mb"] / peak,
            "index_or_build_peak": max(rows["index"]["peak_mb"], rows["build"]["peak_mb"]) / peak,
        },
    }


def _row(runs: list[Measured]) -> dict[str, Any]:
    return {
        "wall_s": median(each.wall_s for each in runs),
        "cpu_s": median(each.cpu_s for each in runs),
        "peak_mb": max(each.peak_mb for each in runs),
        "largest_process_mb": max(each.largest_mb for each in runs),
        "rounds_wall_s": [round(each.wall_s, 3) for each in runs],
    }


def _measure_index(config: BenchConfig, photographs: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """The index and the loops in turns, without the start of Python and unwatched: images/s, and what limits them."""
    rounds: dict[str, list[dict[str, float]]] = {"index": [], "pillow": [], "pillow_sha256": [], "pillow_per_core": []}
    for number in range(config.n_rounds):
        say(f"round {number + 1} of {config.n_rounds}: index and Pillow")
        for name in ("index", "pillow", "pillow_sha256"):
            rounds[name].append(json.loads(run_measured((*RIVALS, name, str(photographs)), is_watched=False).stdout))
        rounds["pillow_per_core"].append(_side_by_side(photographs))
    images_per_s = {name: [each["n_images"] / each["wall_s"] for each in runs] for name, runs in rounds.items()}
    cpu_s = {name: median(each["cpu_s"] for each in runs) for name, runs in rounds.items()}
    index_wall_s = median(each["wall_s"] for each in rounds["index"])
    return {
        "images_per_s": {name: median(values) for name, values in images_per_s.items()},
        "cpu_s": cpu_s,
        "ratios": {
            name: median(one / other for one, other in zip(images_per_s[name], images_per_s[beside], strict=True))
            for name, beside in (("index", "pillow"), ("pillow_per_core", "pillow"), ("pillow_sha256", "pillow"))
        }
        | {
            "index_to_sha256": median(
                one / other for one, other in zip(images_per_s["index"], images_per_s["pillow_sha256"], strict=True)
            )
        },
        "share_decoding": cpu_s["pillow"] / cpu_s["index"],
        "share_sha256": max(0.0, cpu_s["pillow_sha256"] - cpu_s["pillow"]) / cpu_s["index"],
        "cores_busy": cpu_s["index"] / index_wall_s / n_cores(),
    }


def _side_by_side(photographs: Path) -> dict[str, float]:
    """One Pillow loop per core, each with its share of the files: what the cores can give; the slowest one's time."""
    n_loops = n_cores()
    words = [(*RIVALS, "pillow", str(photographs), f"{number}/{n_loops}") for number in range(n_loops)]
    loops = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words]
    done: list[dict[str, float]] = []
    for loop in loops:
        answer, _ = loop.communicate()
        if loop.returncode:
            raise UserError(f"a Pillow loop ended with exit code {loop.returncode}")
        done.append(json.loads(answer))
    return {
        "n_images": sum(each["n_images"] for each in done),
        "wall_s": max(each["wall_s"] for each in done),
        "cpu_s": sum(each["cpu_s"] for each in done),
    }


def _measure_audits(
    config: BenchConfig, sizes: dict[int, Path], n_files: dict[int, int], scratch: Path, say: Callable[[str], object]
) -> dict[str, Any]:
    """Seconds by part at each size, and the power of n with which they grow from the smallest to the largest."""
    audits: list[dict[str, Any]] = []
    for size, photographs in sizes.items():
        say(f"audit of {n_files[size]:,} files")
        words = (*config.program, "audit", str(photographs), "--out", str(scratch / f"audit-{size}"), "--json")
        done = run_measured(words)
        audits.append(
            {
                "n_files": n_files[size],
                "wall_s": done.wall_s,
                "peak_mb": done.peak_mb,
                "seconds": json.loads(done.stdout)["seconds"],
            }
        )
    first, middle, last = audits
    exponents = {
        part: exponent(first["n_files"], seconds, last["n_files"], last["seconds"][part])
        for part, seconds in first["seconds"].items()
    }
    return {
        "sizes": audits,
        "exponents": {
            "whole": exponent(first["n_files"], first["wall_s"], last["n_files"], last["wall_s"]),
            "whole, last doubling": exponent(middle["n_files"], middle["wall_s"], last["n_files"], last["wall_s"]),
            **exponents,
        },
    }


def exponent(n_few: int, few_s: float, n_many: int, many_s: float) -> float | None:
    """p of seconds ~ n ** p between two sizes; None where the smaller took too little to say."""
    if few_s < LEAST_S or many_s <= 0:
        return None
    return math.log(many_s / few_s) / math.log(n_many / n_few)
