"""Progress and messages on stderr: a bar with images/s and the time left, or silence."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

Item = TypeVar("Item")


class Progress:
    """Says things and shows bars; with `is_silent` it does neither."""

    def __init__(self, is_silent: bool = False) -> None:
        self._console = Console(stderr=True, quiet=is_silent)

    def say(self, message: str) -> None:
        """Print one line; brackets and long words stay as they are."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[Item], total: int, what: str = "describing") -> Iterator[Item]:
        """Yield the items, with a bar over `total` of them; no bar for none."""
        if not total or self._console.quiet:
            yield from items
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Bars(*columns, console=self._console) as bars:
            yield from bars.track(items, total=total, description=what)


class _Rate(ProgressColumn):
    """Images per second: rich's speed over the last half minute."""

    def render(self, task: Task) -> Text:
        """`12.3 images/s`, or dots before there is a speed."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} images/s" if speed else "… images/s")
