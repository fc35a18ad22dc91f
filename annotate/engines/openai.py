"""One or many OpenAI-compatible servers (`vllm serve`, SGLang, LMDeploy, …), balanced; one may die."""

import asyncio
import base64
import io
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from typing import Any

from PIL import Image

from annotate.engines.records import Answer, EngineConfig, EngineFacts, Feed, Request
from builders.errors import UserError

PER_ENDPOINT = 64  # requests in flight at each server, unless max_in_flight says otherwise
TRIES = 8  # 500s of one image, over all servers, until it is given up; a time-out counts as four of them
PATIENCE_S = 300.0  # so long may every server be busy, unreachable or silent until images are given up
LONGEST_WAIT_S = 30.0
ANSWER_TIMEOUT_S = 600.0
START_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 60.0


@dataclass
class _Endpoint:
    """One server: how many requests are at it now and were so far, and until when it rests after a failure."""

    url: str
    client: Any
    n_in_flight: int = 0
    n_asked: int = 0
    rests_until: float = 0.0


class OpenAIEngine:
    """Asks servers over HTTP, each image as a lossless PNG, so that the server sees the pixels that were checked.

    `engine_args["endpoint"]` is one URL or a list, with or without `/v1`; the least busy one that answers is asked.
    `engine_args["timeout_s"]` is how long an answer may take; there are no others.
    Refused connections, time-outs, 429 and 5xx are tried again, elsewhere where there is an elsewhere; a 400 is the
    image's own fault and fails it alone. `n_retries` counts how often that was needed.
    The key is `OPENAI_API_KEY`, as the openai package reads it, or none.
    """

    def __init__(self, config: EngineConfig) -> None:
        if config.max_dynamic_patch is not None:
            raise UserError(
                "--max-dynamic-patch is the server's to set, where it is started",
                "vllm serve MODEL --mm-processor-kwargs '{\"max_dynamic_patch\": 1}'",
            )
        unknown = sorted(config.engine_args.keys() - {"endpoint", "timeout_s"})
        if unknown:  # sent to nobody, they would stand in run.json as if they had made the text
            raise UserError(
                f"engine 'openai' has no engine argument {', '.join(unknown)}; it has endpoint and timeout_s",
                "leave it out, and set it where the server is started",
            )
        self._config = config
        self._urls = [_with_v1(url) for url in _endpoints(config.engine_args.get("endpoint", []))]
        self._timeout_s = _timeout_s(config.engine_args.get("timeout_s", ANSWER_TIMEOUT_S))
        self._n_each = config.max_in_flight or PER_ENDPOINT
        self.n_retries = 0
        self._heard_at = 0.0  # when any server last answered, on the monotonic clock

    def start(self) -> EngineFacts:
        """See which servers answer and what they serve. `UserError` if none does, or none serves the model."""
        import openai

        served: dict[str, list[str]] = {}
        troubles: list[str] = []
        for url in self._urls:
            try:
                with openai.OpenAI(base_url=url, api_key=_key(), max_retries=2, timeout=START_TIMEOUT_S) as client:
                    served[url] = [model.id for model in client.models.list()]
            except openai.OpenAIError as error:
                troubles.append(f"{url}: {error}")
        if not served:
            raise UserError("no endpoint answers:\n  " + "\n  ".join(troubles), "vllm serve MODEL --port 8000")
        self._name = self._served_name(served)
        for url in served:
            self._check_that_it_sees(url)
        n_requests = self._n_each * len(self._urls)
        return EngineFacts(
            engine_id="openai",
            rendered_prompt=f"<image>\n{self._config.prompt}",  # the server renders it and does not tell
            dtype="server",
            versions={"openai": version("openai")},
            capacity=n_requests,
            window=n_requests,
        )

    def describe(self, feed: Feed) -> Iterator[Answer]:
        """Keep every server busy; yield answers as they come."""
        answers: queue.Queue[Answer | BaseException | None] = queue.Queue()
        stop = threading.Event()
        thread = threading.Thread(target=self._ask_all, args=(feed, answers, stop), name="openai", daemon=True)
        thread.start()
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            stop.set()
            thread.join()

    def processes(self) -> list[BaseProcess]:
        """None of ours: a server that dies answers with an error."""
        return []

    def close(self) -> None:
        """The servers are not ours."""

    def _served_name(self, served: dict[str, list[str]]) -> str:
        wanted = self._config.model.id
        for url, names in served.items():
            if wanted not in names:
                raise UserError(
                    f"{url} serves {', '.join(names) or 'no model'}, not {wanted}",
                    f"vl-dermnet annotate … --model {names[0] if names else 'NAME'}",
                )
        return wanted

    def _check_that_it_sees(self, url: str) -> None:
        """Ask the server with and without a grey image: `UserError` if its prompt is no longer with one.

        A server that does not count tokens, or is busy or broken now, is let through: what it answers is checked later.
        """
        import openai

        seen = self._question(Request("", Image.new("RGB", (448, 448), "grey"))) | {"max_tokens": 1}
        unseen = seen | {"messages": [{"role": "user", "content": self._config.prompt}]}
        n_tokens: list[int] = []
        client: Any = openai.OpenAI(base_url=url, api_key=_key(), max_retries=0, timeout=PROBE_TIMEOUT_S)
        with client:
            for question in (seen, unseen):
                try:
                    reply: Any = client.chat.completions.create(**question)
                except openai.BadRequestError as error:
                    if question is seen:
                        raise UserError(f"{url} refuses images: {error.message}", "serve a model that sees") from error
                    return
                except openai.OpenAIError:
                    return
                n_tokens.append(reply.usage.prompt_tokens if reply.usage else 0)
        if all(n_tokens) and n_tokens[0] <= n_tokens[1]:
            raise UserError(
                f"{url} does not see: its prompt has {n_tokens[0]} tokens with an image and {n_tokens[1]} without",
                "serve a vision-language model, with a chat template that takes images",
            )

    def _ask_all(
        self, feed: Feed, answers: "queue.Queue[Answer | BaseException | None]", stop: threading.Event
    ) -> None:
        try:
            asyncio.run(self._work(feed, answers, stop))
        except BaseException as error:  # handed to the thread that waits for answers, where it is raised
            answers.put(error)
        answers.put(None)

    async def _work(
        self, feed: Feed, answers: "queue.Queue[Answer | BaseException | None]", stop: threading.Event
    ) -> None:
        import openai

        self._heard_at = time.monotonic()
        endpoints = [
            _Endpoint(url, openai.AsyncOpenAI(base_url=url, api_key=_key(), max_retries=0, timeout=self._timeout_s))
            for url in self._urls
        ]

        async def work() -> None:
            while not feed.is_finished and not stop.is_set():
                request = feed.take(wait=False)
                if request is None:
                    await asyncio.sleep(0.005)
                else:
                    answers.put(await self._ask(request, endpoints))

        try:
            await asyncio.gather(*(work() for _ in range(self._n_each * len(endpoints))))
        finally:
            await asyncio.gather(*(endpoint.client.close() for endpoint in endpoints))

    async def _ask(self, request: Request, endpoints: list[_Endpoint]) -> Answer:
        """One image's answer. Its own failures are counted; a busy or absent server is waited for.

        Raises `UserError` where none has been heard of for too long, and ends the run: nothing is wrong with the image.
        """
        import openai

        question, began = self._question(request), time.monotonic()
        n_failures, n_waits, trouble = 0, 0, ""
        while n_failures < TRIES:
            endpoint = min(endpoints, key=_busyness)
            endpoint.n_in_flight, endpoint.n_asked = endpoint.n_in_flight + 1, endpoint.n_asked + 1
            try:
                reply = await endpoint.client.chat.completions.create(**question)
                self._heard_at = time.monotonic()
                return _answer(request, reply)
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                trouble = f"{type(error).__name__}: {error}"
                n_failures += _weight(error)
                pause_s = _pause_s(n_waits, error)
            except openai.APIStatusError as error:
                return Answer(request.key, task=request.task, error=f"the server refused it: {error.message}")
            finally:
                endpoint.n_in_flight -= 1
            n_waits, self.n_retries = n_waits + 1, self.n_retries + 1
            if time.monotonic() - max(self._heard_at, began) >= PATIENCE_S:
                if n_failures:
                    break
                raise UserError(
                    f"no server has answered for {PATIENCE_S:.0f} s: {trouble}",
                    "start it again; the same command goes on where this one stopped",
                )
            endpoint.rests_until = time.monotonic() + pause_s
            if all(each.rests_until > time.monotonic() for each in endpoints):
                await asyncio.sleep(pause_s)
        return Answer(request.key, task=request.task, error=f"given up after {n_waits} tries: {trouble}")

    def _question(self, request: Request) -> dict[str, Any]:
        """What is sent to the server for one request; findings are held to the schema by it."""
        config, schema = self._config, self._config.schema if request.task == "findings" else None
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(request.image)}},
            {"type": "text", "text": schema.prompt if schema else config.prompt},
        ]
        question: dict[str, Any] = {
            "model": self._name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": schema.max_tokens if schema else config.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if schema:
            held = {"name": schema.name, "schema": schema.json_schema, "strict": True}
            question["response_format"] = {"type": "json_schema", "json_schema": held}
        return question


def _busyness(endpoint: _Endpoint) -> tuple[bool, int, int]:
    """Resting ones last, then those with many requests now, then those that were asked often."""
    return endpoint.rests_until > time.monotonic(), endpoint.n_in_flight, endpoint.n_asked


def _weight(error: Exception) -> int:
    """How much a failure speaks against the image: not at all where the server is busy, absent or starting."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return TRIES // 2
    return int(isinstance(error, openai.InternalServerError) and error.status_code != 503)


def _answer(request: Request, reply: Any) -> Answer:
    if not reply.choices:
        return Answer(request.key, task=request.task, error="the server's reply holds no choice")
    choice, usage = reply.choices[0], reply.usage
    return Answer(
        key=request.key,
        task=request.task,
        text=choice.message.content or "",
        finish_reason=str(choice.finish_reason),
        n_prompt_tokens=usage.prompt_tokens if usage else 0,
        n_output_tokens=usage.completion_tokens if usage else 0,
    )


def _pause_s(attempt: int, error: Exception) -> float:
    """What the server asks for in `Retry-After`, or twice as long each time; shaken, so that not all return at once."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("retry-after", ""))
    seconds = float(asked) if asked.replace(".", "", 1).isdigit() else 0.5 * 2**attempt
    return min(seconds, LONGEST_WAIT_S) * random.uniform(0.75, 1.25)


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _endpoints(given: Any) -> list[str]:
    urls: list[Any] = given if isinstance(given, list) else [given]
    if not urls:
        raise UserError("engine 'openai' needs a server", "vl-dermnet annotate … --endpoint http://localhost:8000/v1")
    for url in urls:
        if not isinstance(url, str):
            raise UserError(f"endpoint {url} is not a URL", "--endpoint http://localhost:8000/v1")
    return urls


def _timeout_s(given: Any) -> float:
    if not isinstance(given, (int, float)) or not 0 < given < float("inf"):
        raise UserError(f"--engine-arg timeout_s={given} is not a number of seconds", "--engine-arg timeout_s=600")
    return float(given)


def _with_v1(url: str) -> str:
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def _key() -> str | None:
    """None lets the openai package read `OPENAI_API_KEY`; local servers want some word where there is none."""
    import openai

    try:
        openai.OpenAI(base_url="http://localhost").close()
    except openai.OpenAIError:
        return "none"
    return None
