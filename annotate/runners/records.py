"""What every runner is told and tells: a wish to stop, and what happened to its engines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from annotate.asks import Ask
from annotate.engines import Answer, EngineFacts


@dataclass(slots=True)
class Stop:
    """Somebody's wish to stop: what is in the engines is finished, no more is asked.

    `is_streaming` is true while engines work, so that there is something to finish.
    """

    is_requested: bool = False
    is_streaming: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """One engine that died and was replaced: why, and how many images were in it."""

    reason: str
    n_in_engine: int


@dataclass(slots=True)
class Report:
    """What happened to the engines so far. `busy_share` is over all of them: how full they were, 0 to 1."""

    restarts: list[Restart] = field(default_factory=list[Restart])
    n_quarantined: int = 0
    n_in_flight: int = 0
    max_in_flight: int | None = None  # where engines had to be made smaller
    _retired: tuple[float, float] = (0.0, 0.0)
    _running: tuple[float, float] = (0.0, 0.0)

    @property
    def busy_share(self) -> float:
        """Seconds that the engines were full over those that they ran."""
        busy_s, wall_s = (sum(each) for each in zip(self._retired, self._running, strict=True))
        return busy_s / wall_s if wall_s else 0.0

    def set_running(self, seconds: list[tuple[float, float]]) -> None:
        """Busy and wall seconds of each engine that runs."""
        self._running = (sum(busy for busy, _ in seconds), sum(wall for _, wall in seconds))

    def retire(self, busy_s: float, wall_s: float) -> None:
        """Those of an engine that is gone."""
        self._retired = (self._retired[0] + busy_s, self._retired[1] + wall_s)


class Runner(Protocol):
    """Who feeds the engines. `describe` answers each ask once, in any order, and gives facts before the first answer;
    it may be called again. `stop` ends it early.
    """

    stop: Stop
    report: Report

    def describe(self, asks: Iterable[Ask]) -> Iterator[EngineFacts | Answer]:
        """Answer every ask."""
        ...

    def close(self) -> None:
        """Give back what was taken, after the last answer."""
        ...

    def kill(self) -> None:
        """Give it back at once."""
        ...
