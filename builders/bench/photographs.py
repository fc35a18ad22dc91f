"""The photographs that are measured: one sample, and smaller ones that are its beginning, as links to its files."""

import csv
from pathlib import Path

from builders.errors import UserError
from builders.sample import ATTRIBUTES_FILE

N_COPIES = 2  # that `write_sample` adds, right after what they repeat


def link_smaller(sample: Path, smaller: Path, n_images: int) -> int:
    """Make in `smaller` what `write_sample` would write with `n_images` and the same seed; returns the files in it.

    The list of attributes stays behind. `UserError` where the sample is smaller than that.
    """
    with (sample / ATTRIBUTES_FILE).open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    n_files = n_images + N_COPIES
    if len(paths) < n_files:
        raise UserError(f"{sample} holds {len(paths)} files, not {n_files}")
    for path in paths[:n_files]:
        target = smaller / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(sample / path)
    return n_files
