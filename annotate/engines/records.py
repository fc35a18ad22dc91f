"""What every engine takes and gives: one dataclass in, one out, and the feed between them."""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Protocol

from PIL import Image

from annotate.models import Model
from annotate.schemas import Schema

Task = Literal["description", "findings"]
TEMPLATE = "choose a checkpoint that brings its chat_template.jinja, or put the model's own beside its weights"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine must know to be built; all of it but `max_in_flight` can change the text.

    `prompt` is the user's turn; `dtype` is `auto` or a torch dtype's name; `max_dynamic_patch` caps InternVL's tiles
    per image; `schema` asks for findings as JSON beside the description; `engine_args` go to the engine as they are.
    """

    model: Model
    prompt: str
    max_tokens: int
    dtype: str = "auto"
    max_dynamic_patch: int | None = None
    max_in_flight: int | None = None
    schema: Schema | None = None
    engine_args: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Request:
    """One question about one image: upright 8-bit RGB. `key` is the sha256 of its file's bytes.

    `task` says which prompt: the run's, or the schema's with an answer held to it. `temperature` 0 is greedy, else
    `seed` counts.
    """

    key: str
    image: Image.Image
    task: Task = "description"
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said of the request with this `key` and `task`; `error` says why it said nothing, else it is
    empty. `findings` is the JSON of a run with a schema, filled in where both answers are joined. `is_unusable` where
    the image's file is at fault, and no engine was asked."""

    key: str
    text: str = ""
    finish_reason: str = ""
    n_image_tokens: int = 0
    n_prompt_tokens: int = 0
    n_output_tokens: int = 0
    n_tiles: int = 0
    error: str = ""
    task: Task = "description"
    findings: str = ""
    is_unusable: bool = False


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a started engine knows of itself: how the prompt was rendered, dtype and versions, for run.json.

    `capacity` is how many requests it works on at once, `window` how many it likes to hold, some of them waiting;
    `tells_image_tokens` whether its answers count them.
    """

    engine_id: str
    rendered_prompt: str
    dtype: str
    versions: dict[str, str]
    capacity: int = 1
    window: int = 1
    tells_image_tokens: bool = False


class Engine(Protocol):
    """Describes images. `start` loads the model; `describe` streams: it takes requests when it has room for them and
    yields answers as they come, in any order, exactly one per request, whatever happens to one of them.
    """

    def start(self) -> EngineFacts:
        """Load the model."""
        ...

    def describe(self, feed: "Feed") -> Iterator[Answer]:
        """Answer everything that the feed holds."""
        ...

    def processes(self) -> list[BaseProcess]:
        """Those that `start` started and that every answer comes from: where one ends, none comes any more."""
        ...

    def close(self) -> None:
        """Give back what `start` took."""
        ...


class Feed:
    """Requests made by a thread ahead of the engine, at most `ahead` of them waiting, so that neither side stalls.

    `take(wait=False)` gives None while nothing is ready; `is_finished` turns true after the last request was taken.
    A None among the requests says that no more come for now: `take` gives it, and `take_many` ends its batch there.
    An exception in the source is raised by `take`.
    """

    _END = object()

    def __init__(self, requests: Iterable[Request | None], ahead: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self.is_finished = False
        self._thread = threading.Thread(target=self._fill, args=(requests,), name="feed", daemon=True)
        self._thread.start()

    def take(self, wait: bool) -> Request | None:
        """The next request; None if there is none yet (without `wait`), none for now, or none any more."""
        if self.is_finished:
            return None
        try:
            item = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if item is self._END:
            self.is_finished = True
            return None
        if isinstance(item, BaseException):
            self.is_finished = True
            raise item
        return item

    def take_many(self, n: int) -> list[Request]:
        """The next `n` requests, fewer where no more come for now; waits for the first."""
        batch: list[Request] = []
        while len(batch) < n and not self.is_finished:
            request = self.take(wait=True)
            if request is not None:
                batch.append(request)
            elif batch:
                break
        return batch

    def close(self) -> None:
        """Stop the thread; what was not taken is dropped."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _fill(self, requests: Iterable[Request | None]) -> None:
        last: Any = self._END
        try:
            for request in requests:
                self._queue.put(request)
                if self._stop.is_set():
                    break
        except BaseException as error:  # handed to the engine's thread, where it is raised
            last = error
        finally:
            close = getattr(requests, "close", None)
            if close is not None:
                close()  # a generator's processes end here, in the thread that ran it
        self._queue.put(last)
