"""Several tasks at once, each in a process of its own: how many small heads are trained on many cores."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from builders.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
Note = Callable[[Any], None]  # what a task says on its way goes through it
Work = Callable[[Task, Note], Result]


def at_once(
    tasks: Sequence[Task],
    n_processes: int,
    begin: Callable[..., Work[Task, Result]],
    arguments: tuple[Any, ...],
    on_note: Note,
    on_done: Callable[[Task, Result], None],
) -> None:
    """Do `tasks`, as many at once as there are processes, in the order that they are named in.

    Each process calls `begin(*arguments)` once, and then what it gave for one task after the other. `on_note` and
    `on_done` are called here, in the caller's process. What `begin` names, `arguments`, tasks and results are pickled.
    The first mistake ends all processes, and so does the end of this one. Raises what a task raised, where that is a
    `UserError`; `UserError` where a process was killed; `RuntimeError` behind the traceback of anything else.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit OpenMP's threads, and they would not run
    waiting = deque(tasks)
    processes: dict[Connection, Any] = {}
    doing: dict[Connection, Task] = {}
    try:
        for _ in range(min(n_processes, len(tasks))):
            here, there = context.Pipe()
            processes[here] = context.Process(target=_serve, args=(there, begin, arguments), daemon=True)
            processes[here].start()
            there.close()
            doing[here] = waiting.popleft()
            _hand(here, processes[here], doing[here])
        while doing:
            for here in wait(list(doing)):
                assert isinstance(here, Connection)
                try:
                    kind, value = here.recv()
                except (EOFError, ConnectionResetError):
                    raise _death(processes[here], doing[here]) from None
                if kind == "note":
                    on_note(value)
                elif kind == "mistake":
                    raise value
                else:
                    on_done(doing.pop(here), value)
                    if waiting:
                        doing[here] = waiting.popleft()
                        _hand(here, processes[here], doing[here])
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _serve(connection: Connection, begin: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]) -> None:
    """What a process does until nobody is there to ask it for more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asked ends this one
    try:
        work = begin(*arguments)
        while True:
            task = connection.recv()
            connection.send(("done", work(task, lambda note: connection.send(("note", note)))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        connection.send(("mistake", error))


def _hand(connection: Connection, process: Any, task: object) -> None:
    try:
        connection.send(task)
    except (BrokenPipeError, ConnectionResetError):
        raise _death(process, task) from None


def _death(process: Any, task: object) -> Exception:
    process.join()
    if process.exitcode < 0:
        return UserError(
            f"a process was killed by {signal.Signals(-process.exitcode).name} while it did {task}; perhaps memory ran "
            "out. What was finished is kept",
            "the same command again, with fewer --jobs",
        )
    return RuntimeError(f"a process failed while it did {task}; why is told above")
