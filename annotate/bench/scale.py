"""`vl-dermnet bench scale`: what the driver itself costs, with an engine that costs nothing, at two sizes."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotate.provenance import machine, utc_now
from builders.errors import UserError
from builders.files import with_ending, write_atomic, write_json

SIZES = (1_000, 20_000)


@dataclass(frozen=True, slots=True)
class Scale:
    """One size: a run from nothing, and the same command again on the finished run.

    `driver_peak_mb` is the greatest resident memory of the driver process alone; `first_part_s` and `run_s` count from
    the start of the command, `first_part_s` to the first file of descriptions on disk.
    """

    n_images: int
    run_s: float
    first_part_s: float
    driver_peak_mb: float
    resume_s: float
    resume_peak_mb: float


def bench_scale(out: Path, sizes: tuple[int, ...], command: str) -> dict[str, Any]:
    """Measure every size and write `out`.json and `out`.md; returns what the JSON holds."""
    scales: list[Scale] = []
    with tempfile.TemporaryDirectory() as scratch:
        for n_images in sizes:
            photographs = Path(scratch) / f"photographs-{n_images}"
            _write_photographs(photographs, n_images)
            scales.append(_measure(photographs, Path(scratch) / f"run-{n_images}", n_images))
    result: dict[str, Any] = {
        "command": command,
        "at": utc_now(),
        "machine": machine(),
        "scales": [asdict(scale) for scale in scales],
    }
    write_json(with_ending(out, ".json"), result)
    page = with_ending(out, ".md")
    write_atomic(page, lambda part: part.write_text(as_markdown(result), encoding="utf-8"))
    return result


def as_markdown(result: dict[str, Any]) -> str:
    """The figures as a page of Markdown."""
    host = result["machine"]
    lines = [
        "# annotate: what the driver costs",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB. Noise of 48 × 32 px, scripted engine.",
        "",
        "| images | run, s | first part on disk after, s | driver's peak, MB | resume, s | its peak, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each['n_images']:,} | {each['run_s']:.1f} | {each['first_part_s']:.1f} | {each['driver_peak_mb']:.0f}"
        f" | {each['resume_s']:.2f} | {each['resume_peak_mb']:.0f} |"
        for each in result["scales"]
    ]
    return "\n".join(lines) + "\n"


def _write_photographs(folder: Path, n_images: int) -> None:
    """Different images, in DermNet's layout."""
    rng = np.random.default_rng(n_images)
    for number in range(n_images):
        path = folder / ("test" if number % 5 == 0 else "train") / f"class-{number % 23:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(path, quality=50)


def _measure(photographs: Path, run: Path, n_images: int) -> Scale:
    run_s, peak_mb, first_part_s = _annotate(photographs, run)
    resume_s, resume_peak_mb, _ = _annotate(photographs, run)
    return Scale(
        n_images=n_images,
        run_s=round(run_s, 2),
        first_part_s=round(first_part_s, 2),
        driver_peak_mb=round(peak_mb, 1),
        resume_s=round(resume_s, 2),
        resume_peak_mb=round(resume_peak_mb, 1),
    )


def _annotate(photographs: Path, run: Path) -> tuple[float, float, float]:
    """Seconds, megabytes, and seconds until a part was on disk, of one `annotate`."""
    words = [sys.executable, "-m", "annotate", "annotate", str(photographs), "--out", str(run), "--engine", "scripted"]
    began = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first_part_s = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if not first_part_s and any((run / "parts").glob("*.parquet")):
            first_part_s = time.monotonic() - began
        if pid:
            break
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"annotate ended with exit code {process.returncode}: {' '.join(words)}")
    return time.monotonic() - began, usage.ru_maxrss / 1024, first_part_s
