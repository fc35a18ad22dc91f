"""A table that somebody brings to an audit: a CSV or Parquet file, row by row, every value as text."""

import csv
from pathlib import Path

from builders.errors import UserError
from builders.files import column_names, read_table

Record = dict[str, str]


def read_records(file: Path, columns: tuple[str, ...]) -> list[Record]:
    """The rows of a table; of a Parquet file only those of `columns` that it has. An empty value is "".

    Raises `UserError` where it cannot be read.
    """
    try:
        if file.suffix.lower() != ".parquet":
            with file.open(newline="", encoding="utf-8-sig") as text:
                return [dict(record) for record in csv.DictReader(text, restval="")]
        there = column_names(file)
        rows = read_table(file, [name for name in columns if name in there]).to_pylist()
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
