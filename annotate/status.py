"""Where a run stands, read from its folder alone: while it goes, after it died, or when it is done."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from annotate.run_lock import is_held, is_under_way
from annotate.sessions import Session, read_sessions
from annotate.shard import parse_shard
from builders.errors import UserError
from builders.run_folder import read_run
from builders.schema import Description

RECENT_S = 60.0
N_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run: `state` is `running`, `finished`, or `stopped` (killed or interrupted; start it again).

    Counts are of indexed files. Rates are over different images: overall from the first to the last answer on disk,
    and over the last minute before the last answer; 0 where there are too few. `time_left_s` is at the recent rate.
    `engine_busy` is how full the engines of the sessions under way are (of the last one, if none is), 0 to 1;
    `n_in_flight` is what they hold. Restarts, retries and GPU hours are over all sessions.
    `examples` holds up to three of each flag and reason, as `image_id: words`.
    """

    state: str
    model: str
    engine: str
    n_images: int
    n_ok: int
    n_refused: int
    n_failed: int
    n_to_do: int
    n_flagged: dict[str, int]
    images_per_s: float
    recent_images_per_s: float
    output_tokens_per_s: float
    time_left_s: float
    engine_busy: float
    n_in_flight: int
    n_restarts: int
    last_restart: str
    n_retried: int
    gpu_hours: float
    examples: dict[str, list[str]]


def status_of(path: Path) -> RunStatus:
    """The state of the run folder at `path`. Raises `UserError` where it is not one, or before it begins."""
    if not (path / "run.json").exists() and is_held(path):
        raise UserError(f"the run in {path} is starting: images are checked, the model is loaded", "try again soon")
    run = read_run(path)
    pairs = [(row, run.descriptions[row.image_id]) for row in run.index if row.image_id in run.descriptions]
    rows = [each for row, each in pairs if each.status != "ok" or each.image_sha256 == row.image_sha256]
    counts = Counter(row.status for row in rows)
    described = {row.image_sha256: row for row in rows if row.status == "ok"}
    times = sorted((_seconds(row), row.n_output_tokens) for row in described.values())
    overall = _rate(len(times), times[0][0], times[-1][0]) if times else 0.0
    recent_from = max(times[0][0], times[-1][0] - RECENT_S) if times else 0.0
    recent = _rate(sum(at >= recent_from for at, _ in times), recent_from, times[-1][0]) if times else 0.0
    tokens = _rate(sum(n for _, n in times), times[0][0], times[-1][0]) if times else 0.0
    sessions, is_running = read_sessions(path), is_held(path)
    latest = _latest(path, sessions)
    restarts = [str(restart["reason"]) for session in sessions for restart in session.restarts]
    n_to_do = len({row.image_sha256 for row in run.index if row.status == "ok"} - set(described))
    return RunStatus(
        state="running" if is_running else "finished" if run.summary is not None else "stopped",
        model=f"{run.run['model']['id']} {run.run['model']['revision']}",
        engine=str(run.run["engine"]["id"]),
        n_images=len(run.index),
        n_ok=counts["ok"],
        n_refused=counts["refused"],
        n_failed=counts["failed"],
        n_to_do=n_to_do,
        n_flagged=dict(sorted(Counter(flag for row in rows for flag in row.flags).items())),
        images_per_s=round(overall, 2),
        recent_images_per_s=round(recent, 2),
        output_tokens_per_s=round(tokens, 1),
        time_left_s=round(n_to_do / recent) if recent else 0.0,
        engine_busy=round(sum(each.engine_busy for each in latest) / len(latest), 3) if latest else 0.0,
        n_in_flight=sum(each.n_in_flight for each in latest) if is_running else 0,
        n_restarts=len(restarts),
        last_restart=restarts[-1] if restarts else "",
        n_retried=sum(session.n_retried for session in sessions),
        gpu_hours=round(sum(session.gpu_hours for session in sessions), 4),
        examples=_examples(rows),
    )


def _latest(path: Path, sessions: list[Session]) -> list[Session]:
    """The sessions under way, one per shard; the last one where none is."""
    last = {session.shard: session for session in sessions}
    under_way = [
        session
        for shard, session in last.items()
        if is_under_way(path, parse_shard(shard.removeprefix("shard ") or None))
    ]
    return under_way or sessions[-1:]


def _rate(n: int, first_s: float, last_s: float) -> float:
    """Per second; times on disk are whole seconds, so a second is added to what lies between them."""
    return n / (last_s - first_s + 1)


def _seconds(row: Description) -> float:
    return datetime.fromisoformat(row.described_at).timestamp()


def _examples(rows: list[Description]) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for row in rows:
        for name in (*row.flags, *([row.status] if row.status != "ok" else [])):
            found = examples.setdefault(name, [])
            if len(found) < N_EXAMPLES:
                found.append(f"{row.image_id}: {(row.reason or row.description)[:200]}")
    return dict(sorted(examples.items()))
