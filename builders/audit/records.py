"""A table that somebody brings to an audit: a CSV or Parquet file, row by row, every value as text."""

import csv
from pathlib import Path

import pyarrow as pa

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
                return _rows(file, csv.DictReader(text, restval="", strict=True))
        there = column_names(file)
        rows = read_table(file, [name for name in columns if name in there]).to_pylist()
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def _rows(file: Path, reader: "csv.DictReader[str]") -> list[Record]:
    """The rows of a CSV; one with more cells than the header would have its values under the wrong names."""
    rows: list[Record] = []
    for record in reader:
        surplus = [value for value in record.pop(None, []) if value]  # where `csv` puts them
        if surplus:
            raise UserError(
                f"{file}, line {reader.line_num} has more values than the header has names: {', '.join(surplus)}",
                'put a value that holds a comma in quotes: "a,b"',
            )
        rows.append(record)
    return rows
