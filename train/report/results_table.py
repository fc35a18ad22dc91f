"""The table with intervals and tests, as `train.table` gives it: the one place where the report meets it."""

from dataclasses import dataclass
from pathlib import Path

from train.table import experiment_table
from train.table.render import Part
from train.table.words import parts


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """The paper's table beside ours and then the other parts, what follows from them in sentences, what has to be known
    to read them, and each model's title by its name."""

    parts: list[Part]
    sentences: list[str]
    notes: list[str]
    titles: dict[str, str]


def results_table(folder: Path) -> ResultsTable:
    """The table of an experiment folder. Raises `UserError` where it holds no predictions."""
    found = experiment_table(folder)
    titles = {row.model: row.title for row in found.rows}
    return ResultsTable(parts(found), found.sentences(), found.notes(), titles)
