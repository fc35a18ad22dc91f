"""One function over many items in processes: a dying worker costs one item, and a dying parent takes all with it."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from typing import Generic, TypeVar

NICENESS = 5  # an engine on the same cores goes first: it is what everybody waits for
TRIES_ALONE = 2  # an item is given up when so many processes of its own died too: one may be killed from outside
HOPELESS = 4  # so many items in a row, each killing all its processes, and none that worked: it is not the items
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
    """One item under way in `Workers`; `future` is None where it is computed when its result is asked for."""

    item: Item
    future: "Future[Result] | None"


class Workers(Generic[Item, Result]):
    """`n_workers` processes that compute `function(item)`; one thread may submit while another takes results.

    A worker that dies fails nobody but its own item: what was under way is computed again, the item that was waited for
    in a process of its own, and if these die too its result is a `WorkerDiedError`. With `n_workers` 0 everything
    is computed in this process, when its result is asked for.
    """

    def __init__(self, function: Callable[[Item], Result], n_workers: int) -> None:
        self._function = function
        self._n_workers = n_workers
        self._lock = threading.RLock()
        self._open: deque[Task[Item, Result]] = deque()
        self._n_done = self._n_died = 0
        self._executor = _make_pool(n_workers) if n_workers else None

    def submit(self, item: Item) -> Task[Item, Result]:
        """Begin with `item`; never waits."""
        with self._lock:
            task: Task[Item, Result] = Task(item, None)
            if self._executor is not None:
                self._begin(task)
                self._open.append(task)
            return task

    def result(self, task: Task[Item, Result]) -> Result | WorkerDiedError:
        """What the function gave, waiting for it. Its exceptions are raised here."""
        if task.future is None:
            return self._function(task.item)
        while True:
            future = task.future
            try:
                result = future.result()
            except BrokenProcessPool:
                with self._lock:
                    if future is task.future:  # else it was submitted again meanwhile
                        return self._again(task)
            except BaseException:
                self._forget(task)
                raise
            else:
                self._forget(task)
                self._n_done += 1
                return result

    def close(self) -> None:
        """End the processes; what was not begun is dropped."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=True, cancel_futures=True)

    def _forget(self, task: Task[Item, Result]) -> None:
        with self._lock:
            self._open.remove(task)

    def _begin(self, task: Task[Item, Result]) -> None:
        assert self._executor is not None
        try:
            task.future = self._executor.submit(self._function, task.item)
        except BrokenProcessPool:
            self._renew()
            task.future = self._executor.submit(self._function, task.item)

    def _renew(self) -> None:
        """A new pool, and everything under way in it; results that the broken one had finished are kept."""
        assert self._executor is not None
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = _make_pool(self._n_workers)
        for task in self._open:
            if task.future is None or not task.future.done() or task.future.exception() is not None:
                task.future = self._executor.submit(self._function, task.item)

    def _again(self, task: Task[Item, Result]) -> Result | WorkerDiedError:
        """The result of one item in a process of its own, the others again in a new pool."""
        self._open.remove(task)
        result: Result | WorkerDiedError = WorkerDiedError("the process that decoded it died")
        for _ in range(TRIES_ALONE):
            with _make_pool(1) as executor, suppress(BrokenProcessPool):
                result = executor.submit(self._function, task.item).result()
                break
        died = isinstance(result, WorkerDiedError)
        self._n_done, self._n_died = self._n_done + (not died), self._n_died + died
        if self._n_died == HOPELESS and not self._n_done:
            raise RuntimeError(NO_WORKER) from None
        self._renew()
        return result


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


def _make_pool(n_workers: int) -> ProcessPoolExecutor:
    # spawn, not fork: the parent holds an engine's threads, and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_live_and_die_with_the_parent)


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
