"""What the GPUs do while something is measured: `nvidia-smi` in a process beside it, a line per GPU and sample."""

import shutil
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from typing import Self

EVERY_MS = 200
# https://docs.nvidia.com/deploy/nvidia-smi/ : utilization.gpu is the share of the sample in which a kernel ran.
_COUNTERS = "--query-gpu=utilization.gpu,memory.used"
_PLAIN = "--format=csv,noheader,nounits"


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """Of all GPUs that were seen: their mean busy share, 0 to 1, and the greatest memory in use on one of them."""

    busy: float
    peak_mb: float


class GpuWatch:
    """Samples every GPU until the block ends; without `nvidia-smi` it knows nothing. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float, float]] = []  # when, per cent busy, MiB
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        program = shutil.which("nvidia-smi")
        if program is not None:
            words = [program, _COUNTERS, _PLAIN, f"--loop-ms={EVERY_MS}"]
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._thread = threading.Thread(target=self._read, name="gpus", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._thread is not None:
            self._process.terminate()
            self._process.wait()
            self._thread.join()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def between(self, began: float, ended: float) -> GpuUsage | None:
        """What was seen from `began` to `ended`; None where nothing was."""
        seen = [(busy, used) for at, busy, used in self._samples if began <= at <= ended]
        if not seen:
            return None
        return GpuUsage(mean(busy for busy, _ in seen) / 100, max(used for _, used in seen) * 2**20 / 1e6)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            busy, _, used = line.partition(",")
            with suppress(ValueError):  # "[N/A]", as on a GPU that is cut in parts
                self._samples.append((time.monotonic(), float(busy), float(used)))


def gpu_names() -> list[str]:
    """Each GPU of this machine with its memory and driver, as `nvidia-smi` names them; none without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    if answer.returncode:
        return []
    rows = [[part.strip() for part in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
    return [f"{name} ({memory}, driver {driver})" for name, memory, driver in rows]
