"""What a run holds, and what its sessions took: written as summary.json when every image has its row."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from annotate.provenance import utc_now
from annotate.publishable import publishable_text
from annotate.seen import Seen
from annotate.sessions import Session
from annotate.shard import Shard
from builders.schema import IndexRow

CHANGED = "the file has changed since it was described, and its new bytes wait for another shard"


@dataclass(frozen=True, slots=True)
class AnnotateSummary:
    """What a run holds now, and what it took.

    `n_ok + n_refused + n_failed == n_images`, once all shards are done. `n_described` counts the images that the
    engine was asked about in the last session, copies once; `n_retried` the answers asked for again because of their
    flags, and `n_mended` the files that lost theirs so. Times, rates, restarts and GPU hours are over all sessions of
    the run; `engine_busy` is how full the engines were, 0 to 1. `n_withdrawn` counts descriptions of images that are in
    the source no more, or beyond a smaller `--limit`.
    """

    n_images: int
    n_ok: int
    n_refused: int
    n_failed: int
    n_withdrawn: int
    n_flagged: dict[str, int]
    reasons: dict[str, int]
    n_described: int
    n_retried: int
    n_mended: int
    n_quarantined: int
    n_sessions: int
    n_restarts: int
    restarts: dict[str, int]
    wall_s: float
    engine_start_s: float
    images_per_s: float
    output_tokens_per_s: float
    engine_busy: float
    gpu_hours: float
    finished_at: str


def summarise(
    index: list[IndexRow],
    seen: dict[str, Seen],
    sessions: list[Session],
    retry_flags: frozenset[str],
    n_described: int,
    shard: Shard | None = None,
) -> AnnotateSummary:
    """The summary of a run, or of one shard of it."""
    ours = [row for row in index if shard is None or shard.has(row.image_sha256)]
    rows = [_of_these_bytes(seen[row.image_id], row) for row in ours if row.image_id in seen]
    status = Counter(row.status for row in rows)
    wall_s = sum(session.wall_s for session in sessions)
    restarts = [restart["reason"] for session in sessions for restart in session.restarts]
    return AnnotateSummary(
        n_images=len(ours),
        n_ok=status["ok"],
        n_refused=status["refused"],
        n_failed=status["failed"],
        n_withdrawn=len(seen.keys() - {row.image_id for row in index}),
        n_flagged=dict(sorted(Counter(flag for row in rows for flag in row.flags).items())),
        reasons=dict(sorted(Counter(row.reason for row in rows if row.reason).items())),
        n_described=n_described,
        n_retried=sum(session.n_retried for session in sessions),
        n_mended=sum(row.retries > 0 and retry_flags.isdisjoint(row.flags) for row in rows),
        n_quarantined=sum(session.n_quarantined for session in sessions),
        n_sessions=len(sessions),
        n_restarts=len(restarts),
        restarts=dict(sorted(Counter(restarts).items())),
        wall_s=round(wall_s, 2),
        engine_start_s=round(sum(session.engine_start_s for session in sessions), 2),
        images_per_s=_rate(sum(session.n_described for session in sessions), wall_s),
        output_tokens_per_s=_rate(sum(session.n_output_tokens for session in sessions), wall_s),
        engine_busy=_rate(sum(session.engine_busy * session.wall_s for session in sessions), wall_s),
        gpu_hours=round(sum(session.gpu_hours for session in sessions), 4),
        finished_at=utc_now(),
    )


def publishable_summary(summary: AnnotateSummary) -> dict[str, Any]:
    """What summary.json holds, which `build` publishes: engines' own words without hosts, passwords and places."""
    cleaned = {"reasons": _cleaned(summary.reasons), "restarts": _cleaned(summary.restarts)}
    return asdict(summary) | cleaned


def _cleaned(counts: dict[str, int]) -> dict[str, int]:
    """Counts by words; those whose words are the same once they are cleaned are added up."""
    cleaned: Counter[str] = Counter()
    for words, times in counts.items():
        cleaned[publishable_text(words)] += times
    return dict(sorted(cleaned.items()))


def _of_these_bytes(row: Seen, image: IndexRow) -> Seen:
    """The row, or a failure in its place where it describes what the file held before."""
    is_stale = row.status == "ok" and row.image_sha256 != image.image_sha256
    return replace(row, status="failed", reason=CHANGED, flags=()) if is_stale else row


def _rate(n: float, seconds: float) -> float:
    return round(n / seconds, 2) if seconds else 0.0
