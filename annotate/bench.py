"""`vl-dermnet bench annotate`: our streaming beside the other ways to ask the same engine, in one run, as a ratio."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from annotate.config import AnnotateConfig
from annotate.engines import EngineConfig, Feed, Request
from annotate.models import resolve_model
from annotate.prompts import load_prompt
from annotate.provenance import machine, utc_now
from builders.decode import decode_rgb
from builders.errors import UserError, choose
from builders.files import write_atomic, write_json
from builders.sources import open_source

LOOP_SIZE = 16  # what public scripts pass to LLM.chat at a time


def bench_annotate(images: str, model: str, out: Path, dtype: str, max_tokens: int, command: str) -> dict[str, Any]:
    """Measure every way in `WAYS` on the same images, model and tokens, each in a process of its own.

    Writes `out`.json and `out`.md and returns what the JSON holds. A ratio of 1 is the engine fed with images that
    wait in memory. Engine start is not counted, decoding is, but for `ready` and `whole_list`, which begin decoded, and
    for the few dozen images that `ours` decodes while its engine starts.
    Raises `UserError` where a way fails.
    """
    settings = {"images": images, "model": model, "dtype": dtype, "max_tokens": max_tokens}
    rows = {way: _measure_apart(way, settings) for way in WAYS}
    for row in rows.values():
        row["ratio"] = round(row["images_per_s"] / rows["ready"]["images_per_s"], 3)
    result = {
        "command": command,
        "at": utc_now(),
        "machine": machine(),
        "versions": rows["ready"].pop("versions"),
        "model": model,
        "n_images": rows["ready"]["n_images"],
        "max_tokens": max_tokens,
        "dtype": dtype,
        "ways": rows,
    }
    write_json(out.with_suffix(".json"), result)
    write_atomic(out.with_suffix(".md"), lambda part: part.write_text(as_markdown(result), encoding="utf-8"))
    return result


def as_markdown(result: dict[str, Any]) -> str:
    """The figures as a table, with all that is needed to get them again."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    host = result["machine"]
    gpus = ", ".join(host["gpus"]) or "no GPU"
    lines = [
        "# annotate: images per second",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {gpus}; {versions}.",
        f"{result['n_images']} images, {result['model']} in {result['dtype']}, at most {result['max_tokens']} tokens.",
        "",
        "| way | images/s | ÷ ready | output tokens | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for way, row in result["ways"].items():
        lines.append(
            f"| {way}: {WAYS[way].__doc__} | {row['images_per_s']:.2f} | {row['ratio']:.3f} | {row['n_output_tokens']}"
            f" | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _measure_apart(way: str, settings: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, "-m", "annotate.bench", way, json.dumps(settings)]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise UserError(f"the measurement '{way}' ended with exit code {ended.returncode}; its messages stand above")
    return json.loads(ended.stdout.splitlines()[-1])


def _ready(settings: dict[str, Any]) -> Iterator[int]:
    """the same engine, images waiting in memory"""
    images, (engine, facts) = _decoded(settings), _engine(settings)
    yield len(images)
    feed = Feed((Request(str(number), image) for number, image in enumerate(images)), ahead=64)
    yield sum(answer.n_output_tokens for answer in engine.describe(feed))
    settings["versions"] = facts.versions


def _ours(settings: dict[str, Any]) -> Iterator[int]:
    """vl-dermnet annotate, files on disk to Parquet parts"""
    from annotate.job import run

    with tempfile.TemporaryDirectory() as folder:
        config = AnnotateConfig(**settings, out=Path(folder) / "run", engine="vllm")
        summary = run(config)
        yield summary.n_described
        settings["wall_s"] = summary.wall_s
        yield round(summary.output_tokens_per_s * summary.wall_s)


def _whole_list(settings: dict[str, Any]) -> Iterator[int]:
    """one LLM.chat over the whole list, images waiting in memory"""
    images, (engine, _) = _decoded(settings), _engine(settings)
    yield len(images)
    yield _chat(engine, images)


def _loop_of_16(settings: dict[str, Any]) -> Iterator[int]:
    """LLM.chat on 16 at a time, each batch decoded first"""
    engine, _ = _engine(settings)
    with open_source(settings["images"]) as source:
        paths = list(source.paths())
        yield len(paths)
        n_tokens = 0
        for start in range(0, len(paths), LOOP_SIZE):
            n_tokens += _chat(engine, [decode_rgb(source.read(path))[0] for path in paths[start : start + LOOP_SIZE]])
    yield n_tokens


WAYS: dict[str, Callable[[dict[str, Any]], Iterator[int]]] = {
    "ready": _ready,
    "ours": _ours,
    "whole_list": _whole_list,
    "loop_of_16": _loop_of_16,
}


def _chat(engine: Any, images: list[Any]) -> int:
    conversations = [engine.conversation(image) for image in images]
    outputs = engine.llm.chat(conversations, engine.sampling, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def _engine(settings: dict[str, Any]) -> tuple[Any, Any]:
    from annotate.engines.vllm import VllmEngine

    model = resolve_model(settings["model"], None, trust_remote_code=False)
    engine = VllmEngine(
        EngineConfig(
            model=model,
            prompt=load_prompt("doctor").text,
            max_tokens=settings["max_tokens"],
            dtype=settings["dtype"],
        )
    )
    return engine, engine.start()


def _decoded(settings: dict[str, Any]) -> list[Any]:
    with open_source(settings["images"]) as source:
        return [decode_rgb(source.read(path))[0] for path in source.paths()]


def main() -> None:
    """One way, measured in this process; its figures are the last line of stdout."""
    way, settings = sys.argv[1], json.loads(sys.argv[2])
    choose("way", way, list(WAYS))
    steps = WAYS[way](settings)
    n_images = next(steps)  # ready to go
    began = time.monotonic()
    n_output_tokens = next(steps)
    wall_s = settings.pop("wall_s", None) or time.monotonic() - began
    next(steps, None)
    figures = {
        "n_images": n_images,
        "n_output_tokens": n_output_tokens,
        "wall_s": round(wall_s, 3),
        "images_per_s": round(n_images / wall_s, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "versions": settings.get("versions", {}),
    }
    sys.stdout.write("\n" + json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
