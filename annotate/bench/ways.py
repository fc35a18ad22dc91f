"""The ways to ask one vLLM engine about a list of images, each run in a process of its own by `annotate.bench`.

A way is a generator: it makes itself ready, yields how many images it will ask about, then how many tokens came back.
The clock runs between the two.
"""

import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from annotate.config import AnnotateConfig
from annotate.engines import EngineConfig, Feed, Request
from annotate.engines.internvl import tile_args
from annotate.models import Model, resolve_model
from annotate.progress import Item, Progress
from annotate.prompts import load_prompt
from builders.decode import decode_rgb
from builders.schema import image_id_of
from builders.sources import open_source

LOOP_SIZE = 16  # what public scripts pass to LLM.chat at a time
RAY_BATCH = 64
IN_FLIGHT = 64  # of the plain client
ANSWER_S = 600

Settings = dict[str, Any]


def ready(settings: Settings) -> Iterator[int]:
    """The engine class that annotate uses, in this process, on images that are decoded already."""
    images, engine = _decoded(settings), _engine(settings)
    yield len(images)
    feed = Feed((Request(str(number), image) for number, image in enumerate(images)), ahead=64)
    yield sum(answer.n_output_tokens for answer in engine.describe(feed))


def ours(settings: Settings) -> Iterator[int]:
    """`annotate` itself, from files to parts; its own clock runs from the ready engine to the last answer."""
    from annotate.job import run

    with tempfile.TemporaryDirectory() as folder:
        config = AnnotateConfig(
            images=settings["images"],
            out=Path(folder) / "run",
            model=settings["model"],
            dtype=settings["dtype"],
            max_tokens=settings["n_tokens"],
            limit=settings["limit"],
            engine="vllm",
            engine_args=_engine_args(settings),
            max_dynamic_patch=settings["max_dynamic_patch"],
            n_workers=settings["n_workers"],
            retries=0,
        )
        clock = _Clock(is_silent=True)
        summary = run(config, progress=clock)
        settings["began"], settings["ended"] = clock.ended - summary.wall_s, clock.ended
        yield summary.n_described
        yield round(summary.output_tokens_per_s * summary.wall_s)


class _Clock(Progress):
    """Silent, and knows when the last bar was full."""

    ended = 0.0

    def track(self, items: Iterable[Item], total: int, what: str = "describing") -> Iterator[Item]:
        """The items, and the time after the last."""
        yield from items
        self.ended = time.monotonic()


def whole_list(settings: Settings) -> Iterator[int]:
    """What the documentation of vLLM shows first."""
    images, engine = _decoded(settings), _engine(settings)
    yield len(images)
    yield _chat(engine, images)


def loop_of_16(settings: Settings) -> Iterator[int]:
    """What public scripts do to bound their memory."""
    engine = _engine(settings)
    with open_source(settings["images"]) as source:
        paths = _paths(settings)
        yield len(paths)
        n_tokens = 0
        for start in range(0, len(paths), LOOP_SIZE):
            n_tokens += _chat(engine, [decode_rgb(source.read(path))[0] for path in paths[start : start + LOOP_SIZE]])
    yield n_tokens


def api_server(settings: Settings, n_front_ends: int = 1) -> Iterator[int]:
    """A server on loopback, and a client that keeps `IN_FLIGHT` requests open."""
    from annotate.bench.server import running_server

    paths, engine_args, model = _paths(settings), dict(settings["engine_args"]), _model(settings)
    tiles = tile_args(model.architecture, settings["max_dynamic_patch"])
    if tiles is not None:
        engine_args["mm_processor_kwargs"] = tiles
    with running_server(model.location, "served", settings["dtype"], n_front_ends, engine_args) as url:
        asyncio.run(_ask_server(url, settings, paths[:2]))  # warm
        yield len(paths)
        yield asyncio.run(_ask_server(url, settings, paths))


def api_server_x2(settings: Settings) -> Iterator[int]:
    """Two processes that decode and render, one engine."""
    yield from api_server(settings, n_front_ends=2)


def ray_data(settings: Settings) -> Iterator[int]:
    """The clock starts when the actor, its engine loaded, is given the first batch."""
    import logging

    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    paths = _paths(settings)
    decode: Any = _RayDecode
    began: list[float] = []
    n_tokens = 0
    described = (
        ray.data.from_items([{"path": path} for path in paths], override_num_blocks=max(1, len(paths) // 16))
        .map(decode, fn_constructor_args=(settings["images"],), concurrency=1, num_cpus=0.5)
        .map_batches(_RayDescribe, fn_constructor_args=(settings,), batch_size=RAY_BATCH, concurrency=1, num_cpus=1)
    )
    for row in described.iter_rows():
        n_tokens += row["n_tokens"]
        began.append(row["began"])
    settings["began"], settings["ended"] = min(began), time.monotonic()
    yield len(paths)
    yield n_tokens


class _RayDecode:
    def __init__(self, images: str) -> None:
        self._source = open_source(images)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        return {"pixels": np.asarray(decode_rgb(self._source.read(row["path"]))[0])}


class _RayDescribe:
    def __init__(self, settings: Settings) -> None:
        self._engine = _engine(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        began, images = time.monotonic(), [Image.fromarray(pixels) for pixels in batch["pixels"]]
        n_tokens = _chat(self._engine, images)
        shares = [n_tokens // len(images)] * len(images)
        return {"n_tokens": shares, "began": [began] * len(images)}


WAYS: dict[str, Callable[[Settings], Iterator[int]]] = {
    "ready": ready,
    "ours": ours,
    "whole_list": whole_list,
    "loop_of_16": loop_of_16,
    "api_server": api_server,
    "api_server_x2": api_server_x2,
    "ray_data": ray_data,
}


def _chat(engine: Any, images: list[Any]) -> int:
    conversations = [engine.conversation(image) for image in images]
    outputs = engine.llm.chat(conversations, engine.sampling(), use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def _engine(settings: Settings) -> Any:
    from annotate.engines.vllm import VllmEngine

    engine: Any = VllmEngine(
        EngineConfig(
            model=_model(settings),
            prompt=load_prompt("doctor").text,
            max_tokens=settings["n_tokens"],
            dtype=settings["dtype"],
            max_dynamic_patch=settings["max_dynamic_patch"],
            engine_args=_engine_args(settings),
        )
    )
    engine.start()
    return engine


def _engine_args(settings: Settings) -> dict[str, Any]:
    return {"ignore_eos": True, **dict(settings["engine_args"])}


def _model(settings: Settings) -> Model:
    return resolve_model(settings["model"], None, trust_remote_code=False)


def _paths(settings: Settings) -> list[str]:
    """Different files of the source, in its order, as many as annotate takes with the same limit."""
    with open_source(settings["images"]) as source:
        paths = list(source.paths())
    return sorted(sorted(paths, key=image_id_of)[: settings["limit"]])


def _decoded(settings: Settings) -> list[Any]:
    with open_source(settings["images"]) as source:
        return [decode_rgb(source.read(path))[0] for path in _paths(settings)]


async def _ask_server(server: str, settings: Settings, paths: list[str]) -> int:
    """Output tokens over all paths, each sent as its file's bytes."""
    import openai

    gate = asyncio.Semaphore(IN_FLIGHT)
    prompt = load_prompt("doctor").text
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", timeout=ANSWER_S)
    with open_source(settings["images"]) as source:

        async def ask(path: str) -> int:
            async with gate:
                url = f"data:image/jpeg;base64,{base64.b64encode(source.read(path)).decode()}"
                content: Any = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
                reply: Any = await client.chat.completions.create(
                    model="served",
                    messages=[{"role": "user", "content": content}],
                    max_tokens=settings["n_tokens"],
                    temperature=0,
                    extra_body={"ignore_eos": True},
                )
                return reply.usage.completion_tokens

        async with client:
            return sum(await asyncio.gather(*(ask(path) for path in paths)))


def main() -> None:
    """One way, measured in this process; its figures are the last line of stdout."""
    way, settings = sys.argv[1], json.loads(sys.argv[2])
    steps = WAYS[way](settings)
    n_images = next(steps)  # ready to go
    began = time.monotonic()
    n_output_tokens = next(steps)
    ended = time.monotonic()
    next(steps, None)
    began, ended = settings.get("began", began), settings.get("ended", ended)
    figures = {
        "n_images": n_images,
        "n_output_tokens": n_output_tokens,
        "began": began,
        "ended": ended,
    }
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
