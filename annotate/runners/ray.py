"""Engines on a Ray cluster, fed by Ray Data: `map_batches` with one actor per engine, answers as they come.

Every node needs this package in the same version, and the images, the model and the run folder at the same paths: what
engines print goes to the run's `logs` from wherever they run.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from math import ceil
from pickle import loads
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from annotate.asks import Ask
from annotate.engines import Answer, EngineFacts
from annotate.runners.engine_process import AHEAD, Order
from annotate.runners.ray_actor import EngineActor, Said
from annotate.runners.records import Report, Restart, Stop
from builders.errors import UserError

if TYPE_CHECKING:
    from annotate.runners import Settings

START_S = 1800.0  # for a model to load, in which nothing is heard of an engine
FUTILE = 2  # passes in a row that failed without one answer: it is not going to work
BATCH = 64  # asks in one Ray task: 3 s of work at 20 images/s
BATCHES = 20_000  # in one data set: each costs the driver 1 ms at the start, so batches of many asks are larger
CAPACITY = {"GPU": 1024, "CPU": 32}  # images at once where --max-in-flight is not given: vLLM's default, and ours
NO_ASK = Ask("", "")  # a batch of these comes back as soon as the engine is ready
ASK = pa.schema([("key", pa.string()), ("path", pa.string()), ("retry", pa.int64())])
ENVIRONMENT = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread of Ray Data that outlives ray.shutdown starts another cluster
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray tells of dead workers on stdout, which is for results
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # of 40 s each, for a cluster that is not there; its own default is 20
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else it warns of how Ray Data itself starts actors
}


class _EndError(Exception):
    """Ends a data set from within: says why, or nothing where somebody wants to stop."""


@dataclass(slots=True)
class _Pulse:
    """When an actor was heard last."""

    at: float

    def silent_s(self) -> float:
        """For how long none was heard."""
        return time.monotonic() - self.at


@dataclass(frozen=True, slots=True)
class _Unit:
    """What an engine takes of one node: GPUs, or where it cannot use them at least one core."""

    kind: str
    n: int

    def on_each_node(self) -> list[int]:
        """How many GPUs or CPUs the nodes of the cluster have."""
        import ray

        return [int(node["Resources"].get(self.kind, 0)) for node in ray.nodes() if node["Alive"]]

    def n_places(self) -> int:
        """How many engines fit into the cluster."""
        return sum(n // self.n for n in self.on_each_node())

    def share(self, n_engines: int) -> dict[str, float]:
        """What Ray sets aside for an actor: the GPUs, or as many cores as all of them can have.

        Ray shows it these GPUs only, and sets OMP_NUM_THREADS to the number of its cores.
        """
        if self.kind == "GPU":
            return {"num_gpus": self.n, "num_cpus": 0}
        nodes = self.on_each_node()
        fits = [n for n in range(1, max(nodes) + 1) if sum(cores // n for cores in nodes) >= n_engines]
        return {"num_cpus": max(fits)}


class RayRunner:
    """`n_engines` actors, each on its own GPUs or on its share of the cores.

    Joins the cluster that `ray.init` finds (RAY_ADDRESS, or one that was started on this machine), else starts one of
    this machine. Ray starts an actor that died anew, where there is room for it, and gives it its batches again; a
    data set that fails or stands still is followed by another over what is left. What kills an engine kills no actor,
    see `EngineActor`. Where `stop` is requested, what is in the engines is dropped; the next run asks it again.
    """

    def __init__(self, order: Order, settings: "Settings", say: Callable[[str], None], stop: Stop) -> None:
        self.stop, self.report = stop, Report()
        self._order, self._settings, self._say = order, settings, say
        self._is_connected = False
        self._blocks: Generator[pa.Table] | None = None  # of the data set that runs
        self._heard: dict[str, Said] = {}  # the last of each actor process, also of those that are gone
        self._processes: dict[str, str] = {}  # the last of each actor
        self._deaths: list[Restart] = []

    def describe(self, asks: Iterable[Ask]) -> Iterator[EngineFacts | Answer]:
        """Answers as they come, each ask once; before the first of them the facts of each engine that gets ready.

        May be called again: engines start anew, because Ray Data ends its actors with each data set. Ends early,
        without answers to the rest, where `stop` is requested. Raises `UserError` where an engine cannot start, the
        cluster is too small, or its workers keep dying.
        """
        waiting, n_futile = {ask.key: ask for ask in asks}, 0
        while not self.stop.is_requested:
            n_waiting = len(waiting)
            failure = yield from self._pass(waiting)
            if not failure:
                return
            n_futile = n_futile + 1 if len(waiting) == n_waiting else 0
            if n_futile == FUTILE:
                raise UserError(
                    f"Ray's workers gave no answer, {FUTILE} times in a row: {failure}",
                    f"read {self._settings.logs} and Ray's own logs; what was finished is kept",
                )
            self._say(f"Ray: {failure}; {len(waiting):,} images are asked again")
            self.kill()

    def close(self) -> None:
        """End the engines, and a cluster that was started for them."""
        self.kill()

    def kill(self) -> None:
        """The same: Ray ends the actors of a driver that leaves, and an engine ends with its actor."""
        if self._is_connected:
            import ray

            self._is_connected = False
            if self._blocks is not None:
                self._blocks.close()  # else its threads find no Ray any more
            ray.shutdown()

    def _pass(self, waiting: dict[str, Ask]) -> Generator[EngineFacts | Answer, None, str]:
        """One data set of all that wait; what is answered leaves `waiting`. Returns why it failed, or nothing."""
        self._connect()
        from ray.exceptions import RayError, RayTaskError

        self._processes, pulse = {}, _Pulse(time.monotonic())
        self._blocks = self._start(list(waiting.values()), pulse)
        try:
            for block in self._blocks:
                for said in block["said"].to_pylist():
                    yield from self._hear(loads(said), waiting)  # noqa: S301  # pickled by our own actor
                pulse.at = time.monotonic()
        except RayTaskError:
            raise  # a bug of ours in the actor
        except RayError as error:
            return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        except _EndError as error:
            return str(error)
        return "some batches did not come back" if waiting else ""

    def _start(self, asks: list[Ask], pulse: _Pulse) -> Generator[pa.Table]:
        """What the actors say, one table per batch.

        Enough batches are in every actor at once that its engine has all it likes to hold, and as much again; but no
        more than its fair share, so that an actor that is up early leaves the others theirs.
        """
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it tells is told here, or raised
        unit = self._unit()
        n_engines = min(self._n_engines(unit), max(1, len(asks)))
        capacity = self._order.config.max_in_flight or CAPACITY[unit.kind]
        n_ahead = min(2 * AHEAD + 4 * capacity, ceil(len(asks) / n_engines))
        n_batch = max(1, min(BATCH, n_ahead // 16), len(asks) // BATCHES)
        n_calls = 2 + ceil(n_ahead / n_batch)
        data: Any = ray.data.from_blocks(list(_tables(chain([NO_ASK] * (n_batch * n_engines), asks), n_batch)))
        data.context.enable_progress_bars = data.context.print_on_execution_start = False
        data.context.execution_no_progress_timeout_s = -1  # the watch knows better
        limit_s = START_S + self._settings.timeout_s
        data.context.custom_execution_callback_classes = [_watch(self.stop, pulse, limit_s)]
        answered = data.map_batches(
            EngineActor,
            fn_constructor_args=(self._order, self._settings),
            batch_size=n_batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=n_engines,
                max_tasks_in_flight_per_actor=n_calls,
                max_concurrent_calls_per_actor=n_calls,
                enable_true_multi_threading=True,
            ),
            **unit.share(n_engines),
        )
        # Without prefetch_batches=0 a batch would wait here for the one after it.
        yield from answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)

    def _hear(self, said: Said | UserError, waiting: dict[str, Ask]) -> Iterator[EngineFacts | Answer]:
        """Book what an actor says. A second answer, of a batch that was asked twice, is dropped."""
        if isinstance(said, UserError):
            raise said
        if said.process not in self._heard:
            before = self._heard.get(self._processes.get(said.actor, ""))
            if said.is_restarted:
                self._deaths.append(Restart("its Ray worker died", before.report.n_in_flight if before else 0))
                self._say(f"a Ray worker died; {said.process} is in its place")
            self._processes[said.actor] = said.process
            yield said.facts
        self._heard[said.process] = said
        self._count()
        for message in said.messages:
            self._say(f"{said.process}: {message}")
        yield from (answer for answer in said.answers if waiting.pop(answer.key, None))

    def _count(self) -> None:
        """Sum up the reports of all actors, also of those that are gone."""
        heard = list(self._heard.values())
        reports = [said.report for said in heard]
        self.report.restarts = [*self._deaths, *chain.from_iterable(report.restarts for report in reports)]
        self.report.n_quarantined = sum(report.n_quarantined for report in reports)
        self.report.n_in_flight = sum(self._heard[name].report.n_in_flight for name in self._processes.values())
        self.report.max_in_flight = min((r.max_in_flight for r in reports if r.max_in_flight), default=None)
        self.report.set_running([(said.report.busy_share * said.wall_s, said.wall_s) for said in heard])

    def _connect(self) -> None:
        """Join the cluster or start one; that is tried twice, because Ray gives its own agents 15 s and no more to get
        up on a busy machine (ray issue 65983)."""
        if self._is_connected:
            return
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        if ray.is_initialized():
            raise UserError("Ray is in use in this process already", "call ray.shutdown() before")
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            try:
                _init()
            except ConnectionError as error:
                raise UserError(
                    f"cannot join the Ray cluster: {error}", "look at ray status and RAY_ADDRESS"
                ) from error
            except Exception:  # Ray raises no other type for it
                ray.shutdown()
                _init()
        finally:
            if threading.current_thread() is threading.main_thread() and on_sigterm is not None:
                signal.signal(signal.SIGTERM, on_sigterm)  # ray.init sets its own
        self._is_connected = True

    def _unit(self) -> _Unit:
        gpus = _Unit("GPU", self._settings.gpus_per_engine)
        is_without = self._order.engine in ("openai", "scripted") or not any(gpus.on_each_node())
        return _Unit("CPU", 1) if is_without else gpus

    def _n_engines(self, unit: _Unit) -> int:
        """As many as there shall be; after some have worked, as many as there is room for."""
        wanted, n_places = self._settings.n_engines, unit.n_places()
        if n_places >= wanted:
            return wanted
        if n_places and self._heard:
            self._say(f"the Ray cluster has room for {n_places} engines now, not for {wanted}")
            return n_places
        raise UserError(
            f"--data-parallel {wanted} with {unit.n} {unit.kind} each does not fit into the Ray cluster, whose nodes"
            f" have {', '.join(map(str, unit.on_each_node()))}",
            f"--data-parallel {max(1, n_places)}",
        )


def _init() -> None:
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)


def _tables(asks: Iterable[Ask], n_rows: int) -> Iterator[pa.Table]:
    asks = iter(asks)
    while part := list(islice(asks, n_rows)):
        columns = [[ask.key for ask in part], [ask.path for ask in part], [ask.retry for ask in part]]
        yield pa.table(columns, schema=ASK)


def _watch(stop: Stop, pulse: _Pulse, limit_s: float) -> type:
    """What ends a data set that nobody wants any more or that does not get on; Ray Data calls it ten times a second.

    Not part of the runner, because Ray pickles it for the actors, along with the other settings of the data set.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class Watch(ExecutionCallback):
        def on_execution_step(self, executor: object) -> None:
            if stop.is_requested:
                raise _EndError
            if pulse.silent_s() > limit_s:
                raise _EndError(f"no answer for {limit_s:.0f} s")

    return Watch
