"""One engine in a Ray actor: batches of asks in, their answers out, through the runner that a single machine has."""

import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain
from os import getpid
from pickle import dumps
from typing import TYPE_CHECKING

import pyarrow as pa

from annotate.asks import Ask
from annotate.engines import Answer, EngineFacts
from annotate.runners.engine_process import Order
from annotate.runners.local import LocalRunner
from annotate.runners.records import Report, Stop
from builders.errors import UserError

if TYPE_CHECKING:
    from annotate.runners import Settings

GAP_S = 0.1  # between two batches of a busy actor; one that gets none for longer has nothing left


@dataclass(frozen=True, slots=True)
class Said:
    """What an actor returns for a batch: the answers, and how it fares.

    `process` names its process; `actor` is Ray's id, which stays where the process `is_restarted`, because another one
    died. `messages` are for a person, and new. `report` counts what happened in this process, whose engine has been
    ready for `wall_s`.
    """

    actor: str
    process: str
    is_restarted: bool
    facts: EngineFacts
    answers: tuple[Answer, ...]
    messages: tuple[str, ...]
    report: Report
    wall_s: float


class EngineActor:
    """A `LocalRunner` with one engine, shared by many calls at once, so that it never drains between their batches.

    The engine is a process beside the actor, as on a single machine: an image that kills it or hangs is found and
    quarantined here, while the actor lives and Ray sees nothing of it. It ends with its actor.
    """

    def __init__(self, order: Order, settings: "Settings") -> None:
        import ray

        context = ray.get_runtime_context()
        self._actor = str(context.get_actor_id())
        self._is_restarted = bool(context.was_current_actor_reconstructed)
        self._process = f"{socket.gethostname()}-{getpid()}"
        self._order = order
        self._settings = replace(settings, n_engines=1, logs=settings.logs / self._process)
        self._lock = threading.Lock()
        self._asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._open: dict[str, Future[Answer]] = {}
        self._ready: Future[EngineFacts] = Future()
        self._error: BaseException | None = None
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._report, self._ready_at = Report(), 0.0
        threading.Thread(target=self._serve, name="engine", daemon=True).start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row for the whole batch, a pickled `Said`, or the `UserError` that ended the engine; Ray's threads wait
        here. Any other error is a bug, and raised.

        One row, because Ray gives a batch again to the process after one that died: whatever was seen of the first
        attempt must not be half of it.
        """
        try:
            futures = [self._ask(Ask(**row)) for row in batch.to_pylist() if row["key"]]
            facts, answers = self._ready.result(), tuple(future.result() for future in futures)
            said: Said | UserError = Said(
                actor=self._actor,
                process=self._process,
                is_restarted=self._is_restarted,
                facts=facts,
                answers=answers,
                messages=tuple(self._told()),
                report=self._report,
                wall_s=time.monotonic() - self._ready_at,
            )
        except UserError as error:
            said = error
        return pa.table({"said": pa.array([dumps(said)], pa.binary())})

    def _ask(self, ask: Ask) -> "Future[Answer]":
        """The answer to come; the same one for an ask that is under way already."""
        with self._lock:
            if self._error:
                raise self._error
            if ask.key not in self._open:
                self._open[ask.key] = Future()
                self._asks.put(ask)
            return self._open[ask.key]

    def _serve(self) -> None:
        """Run the engine until the actor ends or the engine cannot go on."""
        asks: Iterable[Ask] = ()  # at first only start it
        try:
            runner = LocalRunner(self._order, self._settings, self._messages.put, Stop())
            self._report = runner.report
            while True:
                for said in runner.describe(asks):
                    self._hear(said)
                asks = chain([self._asks.get()], self._more())
        except BaseException as error:  # raised in the calls, which wait in other threads
            self._fail(error)

    def _more(self) -> Iterator[Ask]:
        """What else is asked, until there is a gap."""
        try:
            while True:
                yield self._asks.get(timeout=GAP_S)
        except queue.Empty:
            return

    def _hear(self, said: EngineFacts | Answer) -> None:
        if isinstance(said, Answer):
            with self._lock:
                future = self._open.pop(said.key)
            future.set_result(said)
        elif not self._ready.done():
            self._ready_at = time.monotonic()
            self._ready.set_result(said)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            for future in (self._ready, *self._open.values()):
                if not future.done():
                    future.set_exception(error)

    def _told(self) -> Iterator[str]:
        while not self._messages.empty():
            yield self._messages.get()
