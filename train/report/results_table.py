"""The paper's table beside ours, as `train.table` gives it: the one place where the report meets it."""

from dataclasses import dataclass
from pathlib import Path

from train.table import experiment_table


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """Header and rows as text, what follows from them in sentences, what has to be known to read them, and each
    model's title by its name."""

    header: list[str]
    rows: list[list[str]]
    sentences: list[str]
    notes: list[str]
    titles: dict[str, str]


def results_table(folder: Path) -> ResultsTable:
    """The table of an experiment folder. Raises `UserError` where it holds no predictions."""
    found = experiment_table(folder)
    header, rows = found.cells()
    return ResultsTable(header, rows, found.sentences(), found.notes(), {row.model: row.title for row in found.rows})
