"""One JSON per session of a run, rewritten while it goes: rates, busy share, restarts; for `status` and the summary."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from annotate.engines import Answer
from annotate.provenance import utc_now
from annotate.runners import Report
from annotate.shard import Shard
from builders.errors import UserError
from builders.files import read_json, write_json

EVERY_S = 2.0
WINDOW_S = 60.0
FORECAST_S = 30.0  # after the first answers, when rates are those of a full engine


@dataclass(slots=True)
class Session:
    """Counts and clocks from the start of one `annotate` process to its end.

    `n_described` images were asked about, copies and retries not counted; `wall_s` runs from the first ready engine to
    the last answer. `gpu_hours` is `wall_s` and the engines' start on all their GPUs; 0 on a CPU. `engine_busy` is
    how full the engines were, 0 to 1, `recent_images_per_s` over the last minute.
    """

    started_at: str = field(default_factory=utc_now)
    updated_at: str = ""
    shard: str = ""
    n_engines: int = 1
    n_gpus: int = 0
    n_to_do: int = 0
    n_described: int = 0
    n_retried: int = 0
    n_output_tokens: int = 0
    engine_start_s: float = 0.0
    wall_s: float = 0.0
    images_per_s: float = 0.0
    recent_images_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    engine_busy: float = 0.0
    n_in_flight: int = 0
    n_quarantined: int = 0
    n_restarts: int = 0
    restarts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    max_in_flight: int | None = None
    gpu_hours: float = 0.0


class SessionLog:
    """Keeps a `Session` and writes it to `RUN/sessions/` every other second."""

    def __init__(self, run: Path, shard: Shard | None, n_engines: int, n_gpus: int, n_to_do: int) -> None:
        self.session = Session(shard=str(shard) if shard else "", n_engines=n_engines, n_gpus=n_gpus, n_to_do=n_to_do)
        name = self.session.started_at.replace(":", "").replace("-", "") + (f"-{shard.name}" if shard else "")
        taken = len(list((run / "sessions").glob(f"{name}*.json")))
        self._file = run / "sessions" / (f"{name}-{taken}.json" if taken else f"{name}.json")
        self._began = self._clock = time.monotonic()
        self._written_at = 0.0
        self._ended: float | None = None
        self._has_forecast = False
        self._recent: list[tuple[float, int]] = []

    def engine_is_ready(self) -> None:
        """The clock of the rates starts."""
        self._clock = time.monotonic()
        self.session.engine_start_s = round(self._clock - self._began, 2)

    def count(self, answer: Answer, is_retry: bool, report: Report) -> None:
        """One answer came."""
        session = self.session
        session.n_retried += is_retry
        session.n_described += not is_retry
        session.n_output_tokens += answer.n_output_tokens
        if time.monotonic() - self._written_at > EVERY_S:
            self.write(report)

    def forecast(self) -> str:
        """Once, when the rate is steady: images/s, what is left of this session and, on GPUs, the hours in all."""
        now, session = time.monotonic(), self.session
        if self._has_forecast or now - self._clock < FORECAST_S or not session.n_described:
            return ""
        self._has_forecast = True
        images_per_s = session.n_described / (now - self._clock)
        left_s = (session.n_to_do - session.n_described) / images_per_s
        hours = session.n_gpus * (now - self._began + left_s) / 3600
        on_gpus = f", {hours:.2f} GPU hours in all" if session.n_gpus else ""
        return f"{images_per_s:.1f} images/s: {left_s / 60:.0f} min left for {session.n_to_do:,} images{on_gpus}"

    def end(self) -> None:
        """The last answer came: the clock of the rates stops."""
        self._ended = time.monotonic()

    def write(self, report: Report) -> None:
        """Bring the file up to date."""
        now, session = self._ended or time.monotonic(), self.session
        self._written_at = now
        self._recent = [(at, n) for at, n in self._recent if now - at <= WINDOW_S] + [(now, session.n_described)]
        session.updated_at = utc_now()
        session.wall_s = round(now - self._clock, 2)
        session.images_per_s = _rate(session.n_described, session.wall_s)
        session.output_tokens_per_s = _rate(session.n_output_tokens, session.wall_s)
        (then, n_then), recent = self._recent[0], session.images_per_s
        if now - then > EVERY_S:
            recent = _rate(session.n_described - n_then, now - then)
        session.recent_images_per_s = recent
        session.engine_busy = round(report.busy_share, 3)
        session.n_in_flight = report.n_in_flight
        session.n_quarantined, session.n_restarts = report.n_quarantined, len(report.restarts)
        session.restarts = [asdict(restart) for restart in report.restarts]
        session.max_in_flight = report.max_in_flight
        session.gpu_hours = round(session.n_gpus * (now - self._began) / 3600, 4)
        write_json(self._file, asdict(session))


def read_sessions(run: Path) -> list[Session]:
    """All sessions of a run, the oldest first. Raises `UserError` on a file that is damaged."""
    files = sorted((run / "sessions").glob("*.json"), key=lambda file: file.stem)
    return sorted(map(_read, files), key=lambda session: session.started_at)


def _read(file: Path) -> Session:
    try:
        return Session(**read_json(file))
    except (TypeError, UserError) as error:
        said = str(error) if isinstance(error, UserError) else f"{file} does not tell a session: {error}"
        raise UserError(said, f"rm '{file}': it holds the times of one session and no description") from error


def _rate(n: float, seconds: float) -> float:
    return round(n / seconds, 2) if seconds else 0.0
