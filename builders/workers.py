"""One function over many items in processes: in order, a bounded number ahead; a dying worker costs one item."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Generic, TypeVar

HOPELESS = 4  # so many items in a row, each killing two processes, and none that worked: it is not the items
NO_WORKER = (
    "worker processes die as soon as they start. In a script of your own, put what it does under"
    " `if __name__ == '__main__':`, because each worker imports the script; or pass n_workers=0"
)
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(Exception):
    """The process that worked on this item died (a crash in a decoder, out of memory, a kill), twice in a row."""


class _Pool(Generic[Item, Result]):
    """A pool that is made anew when one of its processes dies."""

    def __init__(self, function: Callable[[Item], Result], n_workers: int) -> None:
        self.function = function
        self.n_workers = n_workers
        self._executor = self._make(n_workers)

    def submit(self, item: Item) -> "Future[Result]":
        try:
            return self._executor.submit(self.function, item)
        except BrokenProcessPool:
            self.renew()
            return self._executor.submit(self.function, item)

    def renew(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._make(self.n_workers)

    def alone(self, item: Item) -> "Result | WorkerDiedError":
        """The result of one item in a process of its own, or the error if that process dies too."""
        with self._make(1) as executor:
            try:
                return executor.submit(self.function, item).result()
            except BrokenProcessPool:
                return WorkerDiedError("the process that decoded it died")

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _make(n_workers: int) -> ProcessPoolExecutor:
        # spawn, not fork: the parent holds an engine's threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_live_and_die_with_the_parent)


def _live_and_die_with_the_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however it does: no process is left behind a SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], n_workers: int, ahead: int
) -> Iterator[Result | WorkerDiedError]:
    """Yield `function(item)` for each item, in order, at most `ahead` of them computed before they are asked for.

    `n_workers` 0 computes here, in this process. A worker that dies fails nobody but its own item: what was under way
    is computed again, each in a process of its own, and an item that kills that one too yields `WorkerDiedError`.
    Exceptions of `function` are raised where its item stands.
    """
    if n_workers == 0:
        yield from map(function, items)
        return
    pool = _Pool(function, n_workers)
    source = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    n_done = n_died = 0
    try:
        waiting.extend((item, pool.submit(item)) for item in islice(source, ahead))
        while waiting:
            item, future = waiting.popleft()
            try:
                result: Result | WorkerDiedError = future.result()
            except BrokenProcessPool:
                result = pool.alone(item)
                n_died += isinstance(result, WorkerDiedError)
                if n_died == HOPELESS and not n_done:
                    raise RuntimeError(NO_WORKER) from None
                waiting = _again(pool, waiting)
            n_done += not isinstance(result, WorkerDiedError)
            yield result
            waiting.extend((following, pool.submit(following)) for following in islice(source, 1))
    finally:
        pool.close()


def _again(
    pool: _Pool[Item, Result], waiting: "deque[tuple[Item, Future[Result]]]"
) -> "deque[tuple[Item, Future[Result]]]":
    """Submit once more what the broken pool took down; results that it had finished are kept."""
    pool.renew()
    return deque(
        (item, future if future.done() and future.exception() is None else pool.submit(item))
        for item, future in waiting
    )
