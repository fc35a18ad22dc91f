"""How well classes are told from a set's texts alone, as experiment folders of `train` state it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import UserError
from builders.files import read_json


@dataclass(frozen=True, slots=True)
class TextOnly:
    """The text-only classifier of one set: accuracy in %, macro-F1, over so many seeds; `sd` is None with one."""

    set_name: str
    protocol: str
    accuracy_mean: float
    accuracy_sd: float | None
    macro_f1_mean: float
    n_seeds: int
    n_test: int


def read_text_only(folder: Path, set_names: tuple[str, str], primary: str) -> list[TextOnly]:
    """The text-only rows of one experiment; a config that names no set means the `primary` one.

    Raises `UserError` where the folder is no finished experiment, or one of another set.
    """
    if not (folder / "results.json").is_file() or not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is no finished experiment: it lacks config.json or results.json",
            f"vl-dermnet train DATASET --model text_only --set {set_names[0]} --out '{folder}'",
        )
    name = read_json(folder / "config.json").get("set_name") or primary
    if name not in set_names:
        raise UserError(f"{folder} was trained on the set '{name}', and compared are {' and '.join(set_names)}")
    rows: list[dict[str, Any]] = read_json(folder / "results.json")["table"]["rows"]
    ours: dict[str, dict[str, Any]] = next((row["ours"] for row in rows if row["model"] == "text_only"), {})
    if not ours:
        raise UserError(
            f"{folder} holds no results of the text-only model",
            f"vl-dermnet train DATASET --model text_only --set {name} --out '{folder}'",
        )
    return [
        TextOnly(
            set_name=name,
            protocol=protocol,
            accuracy_mean=score["accuracy_mean"],
            accuracy_sd=score["accuracy_sd"],
            macro_f1_mean=score["macro_f1_mean"],
            n_seeds=score["n_seeds"],
            n_test=score["n_test"],
        )
        for protocol, score in ours.items()
    ]
