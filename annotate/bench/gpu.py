"""`vl-dermnet bench annotate --gpu`: a matrix of models, tiles and ways at the size people use, then single settings.

Every figure is written as soon as it is there, and what stands in OUT.json of the same settings is not measured again:
a machine that is lent for half an hour at a time gets through it in several calls. A way that fails is written with
its reason, costs no other, and is tried again by the next call.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.bench.gpu_report import as_markdown
from annotate.bench.measured import WAYS, BenchConfig, library_versions, measure_apart, measured_machine
from annotate.bench.photographs import write_noise
from annotate.bench.shapes import SHAPES, write_random
from annotate.provenance import utc_now
from builders.errors import UserError, choose
from builders.files import read_json, with_ending, write_atomic, write_json

MODELS = ("internvl3-1b", "internvl3-2b", "internvl3-8b")
DEFAULT_WAYS = ("ready", "ours", "whole_list", "loop_of_16", "api_server")
TILES: dict[str, int | None] = {"1 tile": 1, "the checkpoint's tiles": None}
# One at a time against the default, by `ours` on the last model with one tile: engine arguments, decoding processes.
SETTINGS: dict[str, tuple[dict[str, Any], int | None]] = {
    "max_num_batched_tokens=4096": ({"max_num_batched_tokens": 4096}, None),
    "max_num_batched_tokens=16384": ({"max_num_batched_tokens": 16384}, None),
    "max_num_batched_tokens=32768": ({"max_num_batched_tokens": 32768}, None),
    "max_num_seqs=128": ({"max_num_seqs": 128}, None),
    "max_num_seqs=512": ({"max_num_seqs": 512}, None),
    "max_num_seqs=1024": ({"max_num_seqs": 1024}, None),
    "2 decoding processes": ({}, 2),
    "8 decoding processes": ({}, 8),
    "4 renderer threads": ({"renderer_num_workers": 4}, None),
    "encoder in CUDA graphs": ({"compilation_config": {"cudagraph_mm_encoder": True}}, None),
    "FP8 weights": ({"quantization": "fp8"}, None),
    "no prefix caching": ({"enable_prefix_caching": False}, None),
}


@dataclass(frozen=True, slots=True)
class GpuBench:
    """What is measured. `images` of None are made: `n_images` of DermNet's usual size, no two alike."""

    out: Path
    images: str | None = None
    models: tuple[str, ...] = MODELS
    dtype: str = "bfloat16"
    n_tokens: int = 200
    n_images: int = 2000
    ways: tuple[str, ...] = DEFAULT_WAYS
    has_settings: bool = True
    engine_args: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement; `title` is the model with its tiles, or the setting that is not the default."""

    title: str
    model: str
    tiles: str
    way: str
    setting: str = ""

    @property
    def key(self) -> str:
        """What names it in OUT.json."""
        return " | ".join([self.title, self.way])


def cases_of(bench: GpuBench) -> list[Case]:
    """All measurements in their order: the quick ones of the small models first, single settings last."""
    cases = [
        Case(f"{model}, {tiles}", model, tiles, way) for model in bench.models for tiles in TILES for way in bench.ways
    ]
    if bench.has_settings and "ours" in bench.ways:
        cases += [Case(name, bench.models[-1], "1 tile", "ours", name) for name in SETTINGS]
    return cases


def bench_gpu(bench: GpuBench, command: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what is not measured yet; write and return what OUT.json holds.

    `UserError` for an unknown way or model shape, and where OUT.json is of other settings.
    """
    for way in bench.ways:
        choose("way", way, list(WAYS))
    json_file = with_ending(bench.out, ".json")
    settings = {
        "dtype": bench.dtype,
        "n_tokens": bench.n_tokens,
        "n_images": bench.n_images,
        "engine_args": [list(each) for each in bench.engine_args],
        "photographs": "noise, 720 × 480" if bench.images is None else Path(bench.images).name,
    }
    known: dict[str, Any] = read_json(json_file) if json_file.exists() else {}
    if known and known.get("settings") != json.loads(json.dumps(settings)):
        raise UserError(f"{json_file} holds figures of other settings: {known.get('settings')}", "choose another --out")
    rows: dict[str, dict[str, Any]] = known.get("cases", {})
    cases = cases_of(bench)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        images = bench.images
        if images is None:
            say(f"writing {bench.n_images} photographs")
            write_noise(Path(scratch) / "photographs", bench.n_images)
            images = str(Path(scratch) / "photographs")
        for number, case in enumerate(cases, start=1):
            done = rows.get(case.key)
            if done is None or "failed" in done:
                say(f"{number} of {len(cases)}: {case.key}")
                rows[case.key] = _measure(case, bench, images, Path(scratch))
            result = {
                "command": command,
                "at": utc_now(),
                "machine": measured_machine(),
                "versions": library_versions(),
                "settings": settings,
                "cases": rows,
            }
            write_json(json_file, result)
            page = as_markdown(result, WAYS)
            page_file = with_ending(bench.out, ".md")
            write_atomic(page_file, lambda part, page=page: part.write_text(page, encoding="utf-8"))
    return result


def _measure(case: Case, bench: GpuBench, images: str, scratch: Path) -> dict[str, Any]:
    """The figures of one case, or why there are none; what was asked stands beside them."""
    engine_args, n_workers = dict(bench.engine_args), None
    model = case.model
    if model in SHAPES:
        folder = scratch / model
        if not folder.exists():
            write_random(folder, SHAPES[model])
        if not SHAPES[model].has_weights:
            engine_args = {"load_format": "dummy", **engine_args}
        model = str(folder)
    if case.setting:
        more, n_workers = SETTINGS[case.setting]
        engine_args |= more
    config = BenchConfig(
        images=images,
        out=bench.out,
        model=model,
        dtype=bench.dtype,
        n_tokens=bench.n_tokens,
        limit=bench.n_images,
        engine_args=tuple(engine_args.items()),
        max_dynamic_patch=TILES[case.tiles],
        n_workers=n_workers,
    )
    about = {"title": case.title, "model": case.model, "tiles": case.tiles, "way": case.way, "setting": case.setting}
    try:
        return {**about, **measure_apart(case.way, config), "at": utc_now()}
    except UserError as error:
        return {**about, "failed": str(error)}
