"""What is told on stderr while an experiment runs: lines, and one bar at a time."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def say(console: Console, message: str) -> None:
    """Print a line as it is: not folded, nothing in it taken for markup."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(console: Console, what: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar with the time left; the function advances it. It is gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda n: progress.advance(task, n)
