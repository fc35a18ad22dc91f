"""Processor time and memory of a process and everything it started, from /proc, sampled while it runs."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

EVERY_S = 0.1
EVERY_MEMORY_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds, user and system, and the greatest memory: proportional set size, shared pages counted once.

    `peak_bytes` is of the whole tree, `root_peak_bytes` of its first process alone.
    """

    cpu_s: float
    peak_bytes: int
    root_peak_bytes: int


class Watch:
    """Samples the tree under `pid` until the block ends. Linux only; what has ended keeps its processor time.

    Times are of the monotonic clock, which all processes of a machine share.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[tuple[float, float]] = []
        self._memory: list[tuple[float, int, int]] = []
        self._cpu_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> Usage:
        """What was used from `began` to `ended`, to the nearest sample."""
        cpu_s = self._at(ended) - self._at(began)
        seen = [(of_all, of_root) for at, of_all, of_root in self._memory if began <= at <= ended]
        return Usage(cpu_s, max((each for each, _ in seen), default=0), max((each for _, each in seen), default=0))

    def _at(self, when: float) -> float:
        return min(self._samples, key=lambda sample: abs(sample[0] - when))[1] if self._samples else 0.0

    def _run(self) -> None:
        looked_at = 0.0
        while not self._stop.wait(EVERY_S):
            tree = tree_of(self._pid)
            for pid in tree:
                with suppress(OSError):
                    fields = _stat(pid)
                    self._cpu_s[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
            now = time.monotonic()
            self._samples.append((now, sum(self._cpu_s.values())))
            if now - looked_at >= EVERY_MEMORY_S:
                n_bytes = {pid: _pss_bytes(pid) for pid in tree}
                self._memory.append((now, sum(n_bytes.values()), n_bytes.get(self._pid, 0)))
                looked_at = now


def tree_of(pid: int) -> set[int]:
    """`pid` and all that descends from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    tree, new = {pid}, [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, []) if child not in tree]
        tree.update(new)
    return tree


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
