"""The driver's side of an engine process: start it, send asks, hear answers, know what it holds, see it die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

from annotate.asks import Ask
from annotate.engines import Answer, EngineFacts
from annotate.runners.engine_process import Answered, Asks, Done, Failed, Order, Ready, Taken
from annotate.runners.last_words import cause_of

CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")  # of cgroup v2; counts what the kernel's OOM killer ended here
LAST_LINES = 8
LAST_BYTES = 100_000  # of its log: tracebacks of several processes, one after the other
MAIN = "from annotate.runners.engine_process import main; main()"  # not -m: its messages must not be `__main__`'s


class Process:
    """One engine process and what it was asked: `held` by key, and of these the ones `taken` by the engine itself.

    `log` gets its stdout and stderr; it runs in a session of its own, so that Ctrl-C in the terminal reaches only the
    driver, and everything that it starts can be ended with it.
    """

    def __init__(self, order: Order, environment: Mapping[str, str], log: Path) -> None:
        self.held: dict[str, Ask] = {}
        self.taken: dict[str, float] = {}  # key -> when, on the monotonic clock
        self.facts: EngineFacts | None = None
        self.failed: Failed | None = None
        self.is_done = self.has_ended = self.is_flushed = False
        self.busy_s = self.wall_s = 0.0
        self.started_at = self._heard_at = time.monotonic()
        self._killed_for = ""
        self._n_oom_kills = _n_oom_kills()
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.connection, theirs = Pipe()
        with theirs, log.open("ab") as output:
            self._log_from = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-c", MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        with suppress(OSError):  # it died already: the next hear() tells
            self.connection.send(order)

    @property
    def pid(self) -> int:
        """Of the process, and of its process group."""
        return self._process.pid

    def send(self, asks: Iterable[Ask]) -> None:
        """Ask about these images. A process that is dead is noticed by `hear`."""
        new = tuple(asks)
        if not self.held:
            self._heard_at = time.monotonic()
        self.held.update((ask.key, ask) for ask in new)
        self.is_flushed = False
        self._send(Asks(new))

    def flush(self) -> None:
        """No more for now."""
        if not self.is_flushed:
            self.is_flushed = True
            self._send(Asks((), flush=True))

    def finish(self) -> None:
        """No more at all: it ends when everything is answered."""
        self._send(Asks((), is_last=True))

    def drop(self) -> None:
        """It ends when the engine has answered what it has taken; the rest is not asked."""
        self._send(Asks((), drop=True))

    def hear(self) -> EngineFacts | Answer | None:
        """Wait for the next message and book it: the facts of an engine that is ready, an answer to something that it
        was asked, or None for the rest. After its last word `has_ended` is true."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.has_ended = True
            return None
        self._heard_at = time.monotonic()
        if isinstance(message, Ready):
            self.facts = message.facts
            return message.facts
        if isinstance(message, Answered):
            self.busy_s, self.wall_s = message.busy_s, message.wall_s
            self.taken.pop(message.answer.key, None)
            return message.answer if self.held.pop(message.answer.key, None) else None
        if isinstance(message, Taken):
            self.taken.setdefault(message.key, time.monotonic())
        elif isinstance(message, Failed):
            self.failed = message
        elif isinstance(message, Done):
            self.is_done = True
        return None

    def is_exited(self) -> bool:
        """Whether the process is gone, even where something that it started still holds the pipe open."""
        return self._process.poll() is not None

    def oldest_s(self) -> float:
        """For how many seconds the engine has held the image that it took first, or taken none while some wait."""
        if not (self.facts and self.held):
            return 0.0
        return time.monotonic() - min(self.taken.values(), default=self._heard_at)

    def kill(self, why: str = "") -> None:
        """End it and everything it started; `why` is what it died of."""
        self._killed_for = self._killed_for or why
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Its exit code, negative for a signal; nothing that it started is left."""
        code = self._process.wait()
        self.kill()
        self.connection.close()
        return code

    def why_it_died(self, code: int) -> tuple[str, bool]:
        """In words, and whether it was out of memory.

        An exception tells its type. A kill by the kernel for want of memory is in the cgroup's counter, and what an
        engine's own child process died of stands only in what it printed last.
        """
        printed = self._printed()
        is_oom = bool(self.failed and self.failed.is_out_of_memory)
        was_killed = code == -signal.SIGKILL or bool(self.failed and signal.SIGKILL.name in self.failed.message)
        is_oom |= was_killed and _n_oom_kills() > self._n_oom_kills
        is_oom |= bool(self.failed) and "OutOfMemoryError" in printed
        if self._killed_for:
            reason = self._killed_for
        elif self.failed:
            reason = cause_of(self.failed.kind, self.failed.message, printed)
        elif code < 0:
            reason = f"killed by {signal.Signals(-code).name}"
        else:
            reason = f"ended with exit code {code}"
        reason = reason.encode("utf-8", "backslashreplace").decode()  # it goes into JSON, which is UTF-8
        return reason + (" (out of memory)" if is_oom else ""), is_oom

    def last_words(self) -> str:
        """The end of what it printed since it was started."""
        return "\n".join(self._printed().strip().splitlines()[-LAST_LINES:])

    def _printed(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - LAST_BYTES))
            return log.read().decode("utf-8", "replace")

    def _send(self, message: Asks) -> None:
        with suppress(OSError):
            self.connection.send(message)


def _n_oom_kills() -> int:
    """How many processes of this container the kernel killed for want of memory so far; 0 where it does not tell."""
    with suppress(OSError):
        for line in CGROUP_EVENTS.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
