"""What is asked of an engine: one image at a time, its pixels decoded in processes ahead of it, its answers joined."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from annotate.engines.records import Answer, Request, Task
from builders.decode import BadImageError, decode_rgb
from builders.sources import opened
from builders.workers import Workers

RAMP = 0.3  # added to the temperature at each retry of an answer that was flagged


@dataclass(frozen=True, slots=True)
class Ask:
    """One image to describe: `key` is the sha256 of its bytes, `path` one of the files that hold them.

    `retry` counts how often an answer to it was rejected; each time the temperature is higher and the seed another.
    """

    key: str
    path: str
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Asking:
    """How every `Ask` of a run becomes requests: where the images are, the sampling, and the tasks in their order."""

    images: str
    temperature: float
    seed: int
    tasks: tuple[Task, ...] = ("description",)

    def temperature_of(self, ask: Ask) -> float:
        """0, or what was asked for, for the first answer; `RAMP` more for each retry, up to 1 at most."""
        return self.temperature if ask.retry == 0 else round(max(self.temperature, min(1.0, RAMP * ask.retry)), 3)

    def requests(self, ask: Ask, image: Image.Image) -> list[Request]:
        """One request per task."""
        temperature, seed = self.temperature_of(ask), self.seed + ask.retry
        return [Request(ask.key, image, task, temperature, seed) for task in self.tasks]


class Inbox:
    """Asks in, requests out, through `n_workers` decoding processes; one thread puts, another iterates.

    An image that cannot be used any more gives no request: `on_answer` gets its error. `flush` says that no more asks
    come for now, `finish` that none come at all.
    """

    _FLUSH, _END = object(), object()

    def __init__(self, asking: Asking, n_workers: int, on_answer: Callable[[Answer], None]) -> None:
        self._asking, self._on_answer = asking, on_answer
        self._workers = Workers(partial(decode_one, asking.images), n_workers)
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()

    def put(self, ask: Ask) -> None:
        """Begin to decode one image."""
        self._queue.put((ask, self._workers.submit((ask.key, ask.path))))

    def flush(self) -> None:
        """No more for now: engines that gather batches shall not wait."""
        self._queue.put(self._FLUSH)

    def finish(self) -> None:
        """No more at all."""
        self._queue.put(self._END)

    def __iter__(self) -> Iterator[Request | None]:
        try:
            while (entry := self._queue.get()) is not self._END:
                if entry is self._FLUSH:
                    yield None
                    continue
                ask, task = entry  # type: ignore[misc]  # put() wrote it
                result = self._workers.result(task)
                if isinstance(result, Image.Image):
                    yield from self._asking.requests(ask, result)
                else:
                    self._on_answer(Answer(ask.key, error=str(result), is_unusable=True))
        finally:
            self._workers.close()


class Joiner:
    """Joins the answers to the tasks of one image into one, which has the text of the first and the second's JSON."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = tasks
        self._parts: dict[str, dict[Task, Answer]] = {}
        self._lock = threading.Lock()

    def join(self, answer: Answer) -> Answer | None:
        """The whole answer once all tasks are in, else None. Findings that failed leave the description as it is."""
        if len(self._tasks) == 1:
            return answer
        with self._lock:
            parts = self._parts.setdefault(answer.key, {})
            parts[answer.task] = answer
            if len(parts) < len(self._tasks):
                return None
            del self._parts[answer.key]
        description, findings = parts["description"], parts["findings"]
        return replace(
            description,
            findings=findings.text,
            n_output_tokens=description.n_output_tokens + findings.n_output_tokens,
        )


def decode_one(images: str, item: tuple[str, str]) -> Image.Image | str:
    """The pixels of one file, or the reason why not: gone, changed since it was indexed, or damaged."""
    key, path = item
    source = opened(images)
    try:
        data = source.read(path)
        if hashlib.sha256(data).hexdigest() != key:
            return "the file has changed since it was indexed"
        return decode_rgb(data)[0]
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except BadImageError as error:
        return str(error)
