"""Engines on this machine, one process each: fed, watched, and started again when they die."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from annotate.asks import Ask
from annotate.engines import Answer, EngineFacts
from annotate.runners.devices import environments
from annotate.runners.engine_process import AHEAD, Order
from annotate.runners.last_words import fix_of
from annotate.runners.process import Process
from annotate.runners.records import Report, Restart, Stop
from annotate.runners.work import Work
from builders.errors import UserError

if TYPE_CHECKING:
    from annotate.runners import Settings

TICK_S = 0.25  # between looks at clocks and at a wish to stop
GRACE_S = 10.0  # for what is in the engines when somebody wants to stop, and for an engine to end
FAILED_STARTS = 3  # engines in a row that died before they took an image, after others had worked
QUARANTINES = 5  # images in a row that engines died of, and none that was answered: it is not the images
OOM_DEATHS = 2  # of so many the engines are made smaller


class LocalRunner:
    """`n_engines` processes, each with its own part of the machine in its environment variables.

    An engine that dies, or holds an image for longer than `timeout_s`, is replaced; see `Work` for what is asked again.
    After two deaths for want of memory engines work on half as many images at once. What engines print goes to `logs`.
    """

    def __init__(self, order: Order, settings: "Settings", say: Callable[[str], None], stop: Stop) -> None:
        self.stop, self.report = stop, Report()
        self._order, self._say = order, say
        self._environments = environments(order.engine, settings.n_engines, settings.gpus_per_engine)
        self._logs, self._timeout_s = settings.logs, settings.timeout_s
        self._processes: list[Process] = []
        self._n_oom = self._n_failed_starts = self._n_quarantined_in_a_row = 0

    def describe(self, asks: Iterable[Ask]) -> Iterator[EngineFacts | Answer]:
        """Answers as they come, each ask once; before the first of them the facts of each engine that gets ready.

        May be called again: the engines stay. Ends early, without answers to the rest, where `stop` is requested.
        Raises `UserError` where an engine cannot start, and whatever `asks` raises.
        """
        work = Work(asks)
        if not self._processes:
            self._processes = [self._start(number) for number in range(len(self._environments))]
        yield from (process.facts for process in self._processes if process.facts)
        while not work.is_empty() or any(each.held for each in self._processes) or not self._is_any_ready():
            if self.stop.is_requested:
                yield from self._finish_within_grace()
                return
            self._deal(work)
            yield from self._hear(work)
            self._count()

    def close(self) -> None:
        """End the engines; those that do not end by themselves within seconds are killed."""
        for process in self._processes:
            process.finish()
        deadline = time.monotonic() + GRACE_S
        for process in self._processes:
            while not process.is_exited() and time.monotonic() < deadline:
                time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """End the engines at once."""
        for process in self._processes:
            process.kill()
            process.reap()
            self.report.retire(process.busy_s, process.wall_s)
        self._processes = []
        self._count()

    def _is_any_ready(self) -> bool:
        return any(process.facts for process in self._processes)

    def _start(self, number: int) -> Process:
        return Process(self._order, self._environments[number], self._logs / f"engine-{number}.log")

    def _deal(self, work: Work) -> None:
        for number, process in enumerate(self._processes):
            room = AHEAD + (process.facts.window if process.facts else 0) - len(process.held)
            dealt = work.deal(number, len(process.held), room) if room > 0 else []
            if dealt:
                process.send(dealt)
            elif process.held and room > 0:
                process.flush()

    def _hear(self, work: Work) -> Iterator[EngineFacts | Answer]:
        """What the engines say within a tick; those that died or hang are replaced."""
        ready = wait([process.connection for process in self._processes], TICK_S)
        for number, process in enumerate(self._processes):
            is_exited = process.is_exited()  # asked first: its last word, why it failed, is in the pipe then
            if is_exited or process.connection in ready:
                yield from self._hear_one(process)
            if process.has_ended or is_exited:
                yield from self._replace(number, process, work)
            elif process.oldest_s() > self._timeout_s:
                process.kill(f"no answer for {self._timeout_s:g} s (--timeout)")

    def _hear_one(self, process: Process) -> Iterator[EngineFacts | Answer]:
        while not process.has_ended and process.connection.poll():
            said = process.hear()
            if isinstance(said, Answer) and not said.is_unusable:
                self._n_failed_starts = self._n_quarantined_in_a_row = 0
            if said is not None:
                yield said

    def _finish_within_grace(self) -> Iterator[Answer]:
        """The answers to what the engines have taken, for some seconds. One that is not ready has taken nothing."""
        for process in self._processes:
            process.drop()
        deadline = time.monotonic() + GRACE_S
        waiting = [process for process in self._processes if process.facts]
        while waiting and time.monotonic() < deadline:
            wait([process.connection for process in waiting], TICK_S)
            for process in waiting:
                while not process.has_ended and process.connection.poll():
                    if isinstance(said := process.hear(), Answer):
                        yield said
            waiting = [process for process in waiting if not process.has_ended]
        self.kill()

    def _replace(self, number: int, process: Process, work: Work) -> Iterator[Answer]:
        """Another engine in the place of one that is dead; errors for the images that must not be asked again."""
        code = process.reap()
        if process.failed and process.failed.is_mistake:
            raise UserError(process.failed.message)
        reason, is_oom = process.why_it_died(code)
        self._check_that_it_is_worth_it(process, reason)
        self.report.restarts.append(Restart(reason, len(process.taken)))
        self.report.retire(process.busy_s, process.wall_s)
        self._say(f"engine {number} died: {reason}; {len(process.taken)} images were in it. It is started again.")
        if is_oom and process.facts:
            self._n_oom += 1
            if self._n_oom % OOM_DEATHS == 0:
                self._make_smaller(process.facts.capacity)
        for ask in work.died(number, process.held.values(), process.taken):
            self._n_quarantined_in_a_row += 1
            self.report.n_quarantined += 1
            yield Answer(ask.key, error=f"the engine died of it twice: {reason}")
        if self._n_quarantined_in_a_row >= QUARANTINES:
            raise UserError(
                f"the engine died of {QUARANTINES} images one after the other and answered none: {reason}\n"
                f"{process.last_words()}",
                f"read {self._logs}; what was finished is kept",
            )
        self._processes[number] = self._start(number)

    def _check_that_it_is_worth_it(self, process: Process, reason: str) -> None:
        """`UserError` where engines die before they take an image: at the first, or after some that did."""
        if process.taken:
            return
        self._n_failed_starts += 1
        has_worked = bool(self.report.restarts) or self._is_any_ready()
        if not has_worked or self._n_failed_starts >= FAILED_STARTS:
            what = "ends before it takes an image" if process.facts else "does not start"
            raise UserError(f"the engine {what}: {reason}\n{process.last_words()}", fix_of(reason, str(self._logs)))

    def _make_smaller(self, capacity: int) -> None:
        smaller = max(1, capacity // 2)
        self._order = replace(self._order, config=replace(self._order.config, max_in_flight=smaller))
        self.report.max_in_flight = smaller
        self._say(
            f"{self._n_oom} engines died for want of memory: from now on {smaller} images at once, not {capacity}"
        )

    def _count(self) -> None:
        self.report.n_in_flight = sum(len(process.taken) for process in self._processes)
        self.report.set_running([(process.busy_s, process.wall_s) for process in self._processes])
