"""What a run holds and how fast it went: counted while it goes, written as summary.json at its end."""

import time
from collections import Counter
from dataclasses import dataclass

from annotate.engines import Answer
from annotate.provenance import utc_now
from builders.schema import Description, IndexRow


@dataclass(frozen=True, slots=True)
class AnnotateSummary:
    """What a run holds now, and how fast this session was.

    `n_ok + n_refused + n_failed == n_images`. `n_described` counts the images that the engine was asked about in this
    session, copies once; rates are over the time between the first request and the last answer. `n_withdrawn` counts
    descriptions of images that are in the source no more, or beyond a smaller `--limit`.
    """

    n_images: int
    n_ok: int
    n_refused: int
    n_failed: int
    n_withdrawn: int
    n_flagged: dict[str, int]
    reasons: dict[str, int]
    n_described: int
    wall_s: float
    engine_start_s: float
    images_per_s: float
    output_tokens_per_s: float
    finished_at: str


class Session:
    """Counts and clocks of one session: what the engine answered, and how long starting and answering took."""

    def __init__(self) -> None:
        self.n_described = self.n_output_tokens = 0
        self.engine_start_s = self.wall_s = 0.0
        self._clock = time.monotonic()

    def begin(self) -> None:
        """The engine is ready."""
        now = time.monotonic()
        self.engine_start_s, self._clock = now - self._clock, now

    def count(self, answer: Answer) -> None:
        """One answer came."""
        self.n_described += 1
        self.n_output_tokens += answer.n_output_tokens

    def end(self) -> None:
        """The last answer came."""
        self.wall_s = time.monotonic() - self._clock


def summarise(index: list[IndexRow], descriptions: dict[str, Description], session: Session) -> AnnotateSummary:
    """The summary of a run whose every indexed file has its row."""
    rows = [descriptions[row.image_id] for row in index]
    status = Counter(row.status for row in rows)
    return AnnotateSummary(
        n_images=len(index),
        n_ok=status["ok"],
        n_refused=status["refused"],
        n_failed=status["failed"],
        n_withdrawn=len(descriptions.keys() - {row.image_id for row in index}),
        n_flagged=dict(sorted(Counter(flag for row in rows for flag in row.flags).items())),
        reasons=dict(sorted(Counter(row.reason for row in rows if row.reason).items())),
        n_described=session.n_described,
        wall_s=round(session.wall_s, 2),
        engine_start_s=round(session.engine_start_s, 2),
        images_per_s=round(session.n_described / session.wall_s, 2) if session.wall_s else 0.0,
        output_tokens_per_s=round(session.n_output_tokens / session.wall_s, 1) if session.wall_s else 0.0,
        finished_at=utc_now(),
    )
