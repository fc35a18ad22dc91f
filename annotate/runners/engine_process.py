"""One engine in a process of its own: asks come in on a pipe, answers go out on it, and it ends with its parent.

Started by `annotate/runners/process.py` with a file descriptor as its argument. A process, because a model can
die in ways that no exception tells of: the driver stays, knows what was under way, and starts another.
"""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from annotate.asks import Ask, Asking, Inbox, Joiner
from annotate.engines import Answer, Engine, EngineConfig, EngineFacts, Feed, Request, load_engine
from builders.errors import UserError

AHEAD = 64  # decoded images that wait for the engine: at 720 x 480 px 1 MB each
EXIT_ENGINE_FAILED = 4
WORD_S = 2.0  # for an engine whose own process ended to say why; a kill says nothing


class EngineCoreEndedError(RuntimeError):
    """A process that the engine had started is gone."""


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that an engine process is told when it starts."""

    engine: str
    config: EngineConfig
    asking: Asking
    n_workers: int


@dataclass(frozen=True, slots=True)
class Asks:
    """To the process: images to describe; then, with `flush`, none for now, with `is_last` none any more.

    With `drop` only what the engine itself holds is answered, and the rest forgotten.
    """

    asks: tuple[Ask, ...]
    flush: bool = False
    is_last: bool = False
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """From the process: the model is loaded."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class Taken:
    """From the process: the engine itself now holds this image; if it dies, this one is among the suspects."""

    key: str


@dataclass(frozen=True, slots=True)
class Answered:
    """From the process: one answer, and since its start the seconds it ran and those it was busy.

    Busy seconds are weighed by how full the engine was: half of its `capacity` in flight for a second is half a second.
    """

    answer: Answer
    busy_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """From the process, its last word: what ended it. `is_mistake` where a person can mend it."""

    kind: str
    message: str
    is_mistake: bool = False
    is_out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """From the process, its last word: everything is answered."""


class _Busy:
    """How full the engine was over time: the integral of min(1, in flight / capacity)."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._n, self._area_s = max(1, capacity), 0, 0.0
        self._began = self._at = time.monotonic()

    def change(self, by: int) -> None:
        now = time.monotonic()
        self._area_s += (now - self._at) * min(1.0, self._n / self._capacity)
        self._n, self._at = self._n + by, now

    def seconds(self) -> tuple[float, float]:
        """Busy and wall seconds."""
        return self._area_s, self._at - self._began


class _TellingFeed(Feed):
    """A feed that says what the engine takes out of it."""

    def __init__(self, process: "EngineProcess", inbox: Inbox) -> None:
        self._process = process
        super().__init__(inbox, AHEAD)

    def take(self, wait: bool) -> Request | None:
        request = super().take(wait)
        if self._process.is_dropping:
            self.is_finished = True
            return None
        if request is not None:
            self._process.took(request)
        return request


class EngineProcess:
    """The inside of the process: a thread reads asks, processes decode them, this thread runs the engine."""

    def __init__(self, connection: "Connection[Any, Any]", order: Order) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()
        self._order = order
        self._joiner = Joiner(order.asking.tasks)
        self._inbox = Inbox(order.asking, order.n_workers, self._unusable)
        self._open: Counter[str] = Counter()  # requests in the engine, by image
        self._busy = _Busy(1)
        self.is_dropping = self._is_closing = False
        threading.Thread(target=self._read, name="asks", daemon=True).start()

    def run(self) -> None:
        """Load the engine and answer until the last ask."""
        engine = load_engine(self._order.engine, self._order.config)
        feed = _TellingFeed(self, self._inbox)  # decodes while the model loads
        facts = engine.start()
        self._busy = _Busy(facts.capacity)
        threading.Thread(target=self._watch, args=(engine.processes(),), name="watch", daemon=True).start()
        self.send(Ready(facts))
        for answer in self._answers(engine, feed):
            self.send(Answered(answer, *self._busy.seconds()))
        self._is_closing = True
        engine.close()
        self.send(Done())

    def took(self, request: Request) -> None:
        """The engine holds this request now."""
        self._open[request.key] += 1
        self._busy.change(+1)
        self.send(Taken(request.key))

    def send(self, message: object) -> None:
        """To the parent; a parent that is gone ends this process."""
        try:
            with self._send_lock:
                self._connection.send(message)
        except OSError:
            end_all()

    def fail(self, error: BaseException) -> NoReturn:
        """The last word of this process; the driver decides what follows."""
        import traceback

        traceback.print_exception(error)
        self.send(Failed(type(error).__name__, str(error), is_out_of_memory=_is_out_of_memory(error)))
        sys.stderr.flush()
        os._exit(EXIT_ENGINE_FAILED)  # threads of a broken engine may never end

    def _answers(self, engine: Engine, feed: Feed) -> Iterator[Answer]:
        for answer in engine.describe(feed):
            if self._open[answer.key] > 0:  # else a second answer, or one to nobody
                self._open[answer.key] -= 1
                if not self._open[answer.key]:
                    del self._open[answer.key]
                self._busy.change(-1)
                whole = self._joiner.join(answer)
                if whole is not None:
                    yield whole
        yield from (Answer(key, error="the engine gave no answer") for key in self._open)

    def _unusable(self, answer: Answer) -> None:
        self.send(Answered(answer, *self._busy.seconds()))

    def _watch(self, processes: list[BaseProcess]) -> None:
        """Fail where a process of the engine's own ends before its time: who waits for its answers would wait on."""
        if not processes:
            return
        wait([process.sentinel for process in processes])
        time.sleep(WORD_S)
        if not self._is_closing:
            ended = {process.name: process.exitcode for process in processes if not process.is_alive()}
            words = [f"{name} {_ended_by(code)}" for name, code in ended.items()]
            self.fail(EngineCoreEndedError(", ".join(words) or processes[0].name))

    def _read(self) -> None:
        """Asks from the parent, until it has none left or is gone."""
        while True:
            try:
                message: Asks = self._connection.recv()
            except (EOFError, OSError):
                end_all()
            try:
                self._follow(message)
            except BaseException as error:  # without this thread the process would live on and hear nothing
                self.fail(error)

    def _follow(self, message: Asks) -> None:
        for ask in message.asks:
            self._inbox.put(ask)
        if message.flush:
            self._inbox.flush()
        self.is_dropping |= message.drop
        if message.is_last or message.drop:
            self._inbox.finish()


def end_all() -> NoReturn:
    """End this process and every process it started, at once: the driver is gone, and nobody waits for answers."""
    os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(EXIT_ENGINE_FAILED)  # not reached: this process is in the group


def main() -> None:
    """Serve the pipe whose file descriptor is the first argument."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    process = EngineProcess(connection, connection.recv())
    try:
        process.run()
    except UserError as error:
        process.send(Failed("UserError", str(error), is_mistake=True))
    except BaseException as error:
        process.fail(error)
    sys.stderr.flush()
    os._exit(0)  # everything is said; an engine's own threads need not be waited for


def _ended_by(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _is_out_of_memory(error: BaseException) -> bool:
    torch: Any = sys.modules.get("torch")
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))
