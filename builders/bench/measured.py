"""One command in a process of its own, with its time and the greatest memory of all processes that it started."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from builders.errors import UserError
from builders.process_tree import Watch

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One command, from its start to its end, the start of Python included.

    `peak_mb` is of all its processes together, shared pages counted once, sampled twice a second; of a command that
    was not watched, or ended before a sample, it is `largest_mb`: the kernel's own figure of its largest process.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    largest_mb: float
    stdout: str


def run_measured(words: Sequence[str], *, is_watched: bool = True) -> Measured:
    """Run a command to its end. `UserError` with the end of its stderr where it fails.

    Watching costs some of the machine's time, so what is compared is either all watched or not watched at all.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr)
        watch = Watch(process.pid) if is_watched else None
        with watch or nullcontext():
            _, status, usage = os.wait4(process.pid, 0)
            ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            tail = "\n".join(stderr.read().decode(errors="replace").splitlines()[-5:])
            raise UserError(f"{' '.join(words)} ended with exit code {process.returncode}: {tail}")
        stdout.seek(0)
        largest_mb = usage.ru_maxrss * 1024 / MB
        peak_mb = watch.between(began, ended).peak_bytes / MB if watch else 0.0
        return Measured(
            wall_s=ended - began,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_mb=peak_mb or largest_mb,
            largest_mb=largest_mb,
            stdout=stdout.read().decode(),
        )
