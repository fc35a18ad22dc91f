"""`vl-dermnet bench annotate`: our streaming beside the other ways to ask the same engine, in one run, as a ratio."""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from annotate.bench.measured import WAYS, BenchConfig, library_versions, measure_apart, measured_machine
from annotate.bench.report import as_markdown
from annotate.bench.shapes import SHAPES, write_random
from annotate.provenance import utc_now
from builders.errors import UserError, choose
from builders.files import read_json, with_ending, write_atomic, write_json

__all__ = ["WAYS", "BenchConfig", "as_markdown", "bench_annotate"]


def bench_annotate(config: BenchConfig, command: str) -> dict[str, Any]:
    """Measure every way on the same images, model and tokens, each in a process of its own.

    Writes `out`.json and `out`.md and returns what the JSON holds: medians over the rounds, and each round. A ratio of
    1 is the engine fed with images that wait in memory, in the same round. Engine start is not counted, decoding is,
    but for `ready` and `whole_list`, which begin decoded. What stands in `out`.json already, of the same settings, is
    not measured again. Raises `UserError` where a way fails, and where `out`.json is of other settings.
    """
    for way in config.ways:
        choose("way", way, list(WAYS))
    json_file = with_ending(config.out, ".json")
    page, result = with_ending(config.out, ".md"), dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {**asdict(config), "out": config.out.name, "ways": None, "n_rounds": None}
        known: dict[str, Any] = read_json(json_file) if json_file.exists() else {}
        told: dict[str, Any] = known.get("settings", {})  # older ones lack what was added since, as None
        if known and any(told.get(name) != value for name, value in json.loads(json.dumps(settings)).items()):
            raise UserError(f"{json_file} holds figures of other settings: {told}", "choose another --out")
        rounds: dict[str, list[dict[str, Any]]] = {way: row["rounds"] for way, row in known.get("ways", {}).items()}
        if config.model in SHAPES:
            write_random(Path(scratch) / config.model, SHAPES[config.model])
            config = replace(config, model=str(Path(scratch) / config.model))
        for n_wanted in range(1, config.n_rounds + 1):
            for way in config.ways:
                if len(rounds.setdefault(way, [])) < n_wanted:
                    rounds[way].append(measure_apart(way, config))
                result = _result(command, settings, rounds)
                write_json(json_file, result)
                text = as_markdown(result, WAYS)
                write_atomic(page, lambda part, text=text: part.write_text(text, encoding="utf-8"))
    return result


def _result(command: str, settings: dict[str, Any], rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "command": command,
        "at": utc_now(),
        "machine": measured_machine(),
        "versions": library_versions(),
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
