"""What one row may hold, column by column."""

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from builders.check.fault import shown
from builders.review import VERDICTS
from builders.schema import image_id_of
from builders.sources.layout import split_and_label

Row = dict[str, Any]
Complaint = tuple[str, str, str]  # column, what is seen, what is allowed

CLEAN = ("train", "validation", "test", "excluded")
OFFICIAL = {"train": ("train", "validation"), "validation": ("validation",), "test": ("test",)}  # by the file's split
_HEX16, _HEX64, _FLAG = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}"), re.compile(r"[a-z][a-z0-9_]*")
_COUNTS = ("n_image_tokens", "n_prompt_tokens", "n_output_tokens", "n_tiles")


def malformed(row: Row, n_labels: int) -> list[Complaint]:
    """What makes a row unusable for any other rule: columns without a value, ids, splits and labels of another form.

    A label may be nothing; of a photograph that is, `photograph_check` tells.
    """
    lacking = [name for name, value in row.items() if value is None and name not in ("label", "image")]
    lacking += ["flags"] if row["flags"] and None in row["flags"] else []
    found: list[Complaint] = [(name, "nothing", "a value in every row") for name in lacking]
    for name, form, words in (("image_id", _HEX16, "16 hex digits"), ("image_sha256", _HEX64, "64 hex digits")):
        if name not in lacking and not form.fullmatch(row[name]):
            found.append((name, shown(row[name]), words))
    if "split_clean" not in lacking and row["split_clean"] not in CLEAN:
        found.append(("split_clean", shown(row["split_clean"]), ", ".join(CLEAN)))
    if "split_official" not in lacking and row["split_official"] not in OFFICIAL:
        found.append(("split_official", shown(row["split_official"]), ", ".join(OFFICIAL)))
    if row["label"] is not None and not 0 <= row["label"] < n_labels:
        found.append(("label", shown(row["label"]), f"0 to {n_labels - 1}, or nothing"))
    return found


def complaints(row: Row, split: str, label_names: list[str]) -> Iterator[Complaint]:
    """What is wrong with a well-formed row in a file of `split`."""
    yield from _identity(row, split, label_names)
    if row["split_official"] not in OFFICIAL[split]:
        allowed = f"{' or '.join(OFFICIAL[split])} in a file of {split}"
        yield "split_official", shown(row["split_official"]), allowed
    if row["split_clean"] not in (row["split_official"], "excluded"):
        yield "split_clean", shown(row["split_clean"]), f"{row['split_official']} (its split_official) or excluded"
    if row["in_balanced_subset"] and (row["split_clean"] != "train" or row["label"] is None):
        yield "in_balanced_subset", "true", "true only for rows with a label whose split_clean is train"
    for name in _COUNTS:
        if row[name] < 0:
            yield name, shown(row[name]), "0 or more"
    if not (math.isfinite(row["temperature"]) and row["temperature"] >= 0):
        yield "temperature", shown(row["temperature"]), "0 or more"
    flags: list[str] = row["flags"]
    if flags != sorted(set(flags)) or not all(_FLAG.fullmatch(flag) for flag in flags):
        yield "flags", shown(flags), "names in lower case, in order, each once"
    if row.get("review") not in (None, "", *VERDICTS):
        yield "review", shown(row["review"]), f"{', '.join(VERDICTS)}, or empty"


def leaves_root(path: str) -> bool:
    """Whether a path, if it were believed, could name something outside the photographs' folder, or nothing at all."""
    return path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path


def _identity(row: Row, split: str, label_names: list[str]) -> Iterator[Complaint]:
    """Id, split and class all follow from the path."""
    path, label = row["path"], row["label"]
    if row["image_id"] != image_id_of(path):
        yield "image_id", shown(row["image_id"]), f"'{image_id_of(path)}', the id of its path {shown(path)}"
    if leaves_root(path):
        yield "path", shown(path), "a relative path below the photographs' folder, with / between its parts"
    told_split, told_label = split_and_label(path)
    if told_split != split:
        yield "path", shown(path), f"a path of split {split}, in whose file the row is; this one says {told_split}"
    if (label_names[label] if label is not None else "") != told_label:
        seen = shown(label_names[label]) if label is not None else "nothing"
        yield "label", seen, f"{shown(told_label)}, the class folder in its path" if told_label else "nothing"
