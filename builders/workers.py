"""One function over many items in processes: a dying worker costs one item, and a dying parent takes all with it."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

NICENESS = 5  # an engine on the same cores goes first: it is what everybody waits for
TRIES = 3  # an item is given up when so many processes died on it: one may be killed from outside
HOPELESS = 4  # so many items given up, and none that worked: it is not the items
NO_WORKER = (
    "worker processes die as soon as they start. In a script of your own, put what it does under"
    " `if __name__ == '__main__':`, because each worker imports the script; or pass n_workers=0"
)
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(Exception):
    """Process after process that worked on this item died: a crash in a decoder, out of memory, a kill."""


@dataclass(eq=False, slots=True)
class Task(Generic[Item, Result]):
    """One item under way in `Workers`; `n_deaths` counts the processes that died on it."""

    item: Item
    future: "Future[Result | WorkerDiedError]" = field(default_factory=lambda: Future())
    n_deaths: int = 0


class Workers(Generic[Item, Result]):
    """`n_workers` processes that compute `function(item)`; one thread may submit while another takes results.

    A worker that dies fails nobody but its own item: that one is tried in other processes, and if these die too its
    result is a `WorkerDiedError`. With `n_workers` 0 everything is computed in this process, when its result is asked
    for. Each process has a pipe of its own and one item at a time: of a `ProcessPoolExecutor`, which has one for all,
    a process killed in the middle of a message keeps the others waiting for the rest of it, for ever.
    """

    def __init__(self, function: Callable[[Item], Result], n_workers: int) -> None:
        self._function = function
        self._waiting: deque[Task[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._n_done = self._n_given_up = 0
        self._threads = [threading.Thread(target=self._keep_one, daemon=True) for _ in range(n_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, item: Item) -> Task[Item, Result]:
        """Begin with `item`; never waits."""
        task: Task[Item, Result] = Task(item)
        with self._changed:
            if self._is_closed:
                raise RuntimeError("these workers are closed")
            self._waiting.append(task)
            self._changed.notify()
        return task

    def result(self, task: Task[Item, Result]) -> Result | WorkerDiedError:
        """What the function gave, waiting for it. Its exceptions are raised here."""
        if not self._threads:
            return self._function(task.item)
        return task.future.result()

    def close(self) -> None:
        """End the processes; what was not finished is dropped."""
        with self._changed:
            self._is_closed = True
            for task in self._waiting:
                task.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _keep_one(self) -> None:
        """Of one thread: give one process after the other item after item."""
        worker: _Worker | None = None
        while (task := self._next()) is not None:
            worker = worker or _Worker(self._function)
            value: Any
            try:
                is_result, value = worker.ask(task.item, lambda: self._is_closed)
            except (EOFError, OSError):
                worker.end()
                worker = None
                self._died(task)
                continue
            except Exception as error:  # the item cannot be pickled: its owner gets to know
                is_result = False
                value = error
            if is_result:
                self._n_done += 1
                task.future.set_result(value)
            else:
                task.future.set_exception(value)
        if worker is not None:
            worker.end()

    def _next(self) -> Task[Item, Result] | None:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            return None if self._is_closed else self._waiting.popleft()

    def _died(self, task: Task[Item, Result]) -> None:
        with self._changed:
            task.n_deaths += 1
            if self._is_closed:
                task.future.cancel()
            elif task.n_deaths < TRIES:
                self._waiting.appendleft(task)
                self._changed.notify()
            else:
                self._n_given_up += 1
                if self._n_given_up >= HOPELESS and not self._n_done:
                    task.future.set_exception(RuntimeError(NO_WORKER))
                else:
                    task.future.set_result(WorkerDiedError("the process that decoded it died"))


class _Worker:
    """One process that computes what it is asked, one item after the other, through a pipe that only it writes to."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # spawn, not fork: the parent holds an engine's threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, its_end), daemon=True)
        self._process.start()
        its_end.close()  # else the end of the process would not be seen here

    def ask(self, item: Any, is_over: Callable[[], bool]) -> tuple[bool, Any]:
        """Whether the function gave a result, and it or its exception. `EOFError` or `OSError` if the process ends."""
        self._pipe.send(item)
        while not self._pipe.poll(0.5):
            if is_over():
                raise EOFError
        return self._pipe.recv()

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], n_workers: int, ahead: int
) -> Iterator[Result | WorkerDiedError]:
    """Yield `function(item)` for each item, in order, at most `ahead` of them computed before they are asked for.

    Exceptions of `function` are raised where its item stands. See `Workers` for workers that die.
    """
    workers: Workers[Item, Result] = Workers(function, n_workers)
    source = iter(items)
    try:
        waiting = deque(workers.submit(item) for item in islice(source, max(1, ahead)))
        while waiting:
            yield workers.result(waiting.popleft())
            waiting.extend(workers.submit(item) for item in islice(source, 1))
    finally:
        workers.close()


def unordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], n_workers: int
) -> Generator[tuple[Item, Result | WorkerDiedError]]:
    """Yield each item with `function(item)` as soon as that is there, `n_workers` at a time, begun in their order.

    The first exception of `function` is raised, and the others under way end. See `Workers` for workers that die.
    """
    workers: Workers[Item, Result] = Workers(function, n_workers)
    try:
        items_of = {task.future: task.item for task in map(workers.submit, items)}
        for future in as_completed(items_of):
            yield items_of[future], future.result()
    finally:
        workers.close()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """The life of a worker process."""
    _live_and_die_with_the_parent()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, function(item))
        except Exception as error:  # raised again in the parent, where the result is asked for
            answer = (False, error)
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # it cannot be pickled
            pipe.send((False, RuntimeError(f"cannot be sent to the parent: {error!r} ({answer[1]!r})")))


def _live_and_die_with_the_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however it does: no process is left behind a SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
