"""The numbers in provenance/<set>.json against the rows that are there."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from builders.check.fault import Fault, shown, visible
from builders.check.provenance import provenance_file
from builders.check.row_rules import CLEAN
from builders.check.rows import Tally
from builders.dataset_folder import PROVENANCE, DescriptionSet

_LEFT_OUT_COLUMNS = ["image_id", "path", "split", "label", "status", "reason"]


def check_counts(folder: Path, described: DescriptionSet, tally: Tally) -> Iterator[Fault]:
    """Rows per split, the hash of all rows, what was left out, and the run's own summary."""
    file, stated = provenance_file(described), described.build["rows"]
    expected = {
        "rows.n_rows": (stated["n_rows"], tally.rows.total()),
        "rows.n_per_split": (stated["n_per_split"], dict(sorted(tally.rows.items()))),
        "rows_sha256": (described.build["rows_sha256"], tally.rows_sha256),
        "n_reviewed": (described.build.get("n_reviewed", 0), tally.n_reviewed),
    }
    for key, (seen, counted) in expected.items():
        if seen != counted:
            yield Fault("counts", file, f"build.{key}", shown(seen), f"{shown(counted)}, as the shards hold")
    left_out = yield from _check_left_out(folder, described, tally)
    if left_out != stated["n_left_out"]:
        seen = shown(stated["n_left_out"])
        allowed = f"{shown(left_out)}, as the list of what is not described holds"
        yield Fault("counts", file, "build.rows.n_left_out", seen, allowed)
    yield from _check_summary(described, tally, file)


def _check_left_out(folder: Path, described: DescriptionSet, tally: Tally) -> Iterator[Fault]:
    """Faults of the list of photographs without a description; returns how many it holds by status."""
    name = f"{PROVENANCE}/{described.name}.not-described.csv"
    counts: Counter[str] = Counter()
    if not (folder / name).is_file():
        return {}
    known = set(tally.ids)
    try:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames != _LEFT_OUT_COLUMNS:
                yield Fault("counts", name, "header", shown(rows.fieldnames), shown(_LEFT_OUT_COLUMNS))
                return {}
            for row in rows:
                counts[str(row["status"])] += 1
                if _number(row["image_id"]) in known:
                    place, allowed = f"row {visible(row['image_id'])}", "only photographs that the shards do not hold"
                    yield Fault("counts", name, place, "a photograph that has a description", allowed)
    except (csv.Error, UnicodeDecodeError) as error:
        yield Fault("counts", name, "", f"cannot be read: {visible(str(error))}", "CSV in UTF-8")
    return dict(sorted(counts.items()))


def _number(image_id: str | None) -> int:
    try:
        return int(image_id or "", 16)
    except ValueError:
        return -1


def _check_summary(described: DescriptionSet, tally: Tally, file: str) -> Iterator[Fault]:
    """The summary of a finished run counts the rows that became this set. What an old run does not tell is left out."""
    summary, left_out = described.summary or {}, described.build["rows"]["n_left_out"]
    n_told = tally.rows.total() + sum(left_out.values())
    if not left_out.keys() <= {"refused", "failed"} or summary.get("n_images", n_told) != n_told:
        return  # built from a part of a run, or while it was still going
    counted: dict[str, Any] = {
        "n_ok": tally.rows.total(),
        "n_refused": left_out.get("refused", 0),
        "n_failed": left_out.get("failed", 0),
        "n_flagged": dict(sorted(tally.flags.items())),
    }
    for key, count in counted.items():
        if key in summary and summary[key] != count:
            yield Fault("counts", file, f"summary.{key}", shown(summary[key]), f"{shown(count)}, as the set holds")


def check_split_counts(sets: list[DescriptionSet], tallies: list[Tally]) -> Iterator[Fault]:
    """The split's counts against all rows of all sets: equal where no photograph is without a row, else not below."""
    stated, file = sets[0].build["splits"], provenance_file(sets[0])
    ids = np.concatenate([np.asarray(each.ids, dtype=np.uint64) for each in tallies])
    first = np.unique(ids, return_index=True)[1]
    columns = {
        name: np.concatenate([np.asarray(getattr(each, name)) for each in tallies])[first]
        for name in ("official", "clean", "groups", "balanced")
    }
    groups = columns["groups"]
    counted: dict[str, Any] = {
        "n_rows": len(first),
        "n_official": _by_split(columns["official"]),
        "n_clean": _by_split(columns["clean"]),
        "n_groups": len(np.unique(groups[groups != 0])),
        "n_rows_in_groups": int(np.count_nonzero(groups)),
        "n_balanced": int(np.count_nonzero(columns["balanced"])),
    }
    is_whole = len(first) == stated["n_rows"]
    for key, count in counted.items():
        if stated[key] != count if is_whole else not _reaches(stated[key], count):
            allowed = f"{'' if is_whole else 'at least '}{shown(count)}, as the shards hold"
            yield Fault("counts", file, f"build.splits.{key}", shown(stated[key]), allowed)


def _by_split(places: Any) -> dict[str, int]:
    return dict(sorted(Counter(CLEAN[place] for place in places.tolist()).items()))


def _reaches(stated: Any, count: Any) -> bool:
    if isinstance(count, dict):
        return all(stated.get(name, 0) >= n_rows for name, n_rows in count.items())
    return stated >= count
