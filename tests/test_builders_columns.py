"""Columns made without pandas: what `pa.Table.from_pylist` makes of the same rows, and no import of pandas."""

import subprocess
import sys

import pyarrow as pa
import pytest

from builders.columns import table_of
from builders.features import arrow_schema, dataset_features

LABELS = ["acne", "wart"]


def row(number, **changes):
    return {
        "image": {"bytes": bytes([number % 256]) * (number % 7), "path": f"train/ä/{number}.jpg"},
        "image_id": f"{number:016x}",
        "image_sha256": f"{number:064x}",
        "path": f"train/ä/{number}.jpg",
        "label": None if number % 3 == 0 else number % 2,
        "description": "Ein Satz – mit\nZeilen 🙂 \x00" * (number % 4),
        "findings": "{}",
        "finish_reason": "stop",
        "temperature": number / 3,
        "n_image_tokens": number,
        "n_prompt_tokens": 2**31 - 1,
        "n_output_tokens": -number,
        "n_tiles": 0,
        "flags": ["empty", "naïve"][: number % 3],
        "review": "",
        "review_note": "",
        "duplicate_group": "",
        "split_official": "train",
        "split_clean": "test",
        "in_balanced_subset": number % 2 == 0,
        **changes,
    }


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_every_column_is_what_pyarrow_makes_of_the_same_rows(n):
    schema = arrow_schema(dataset_features(LABELS, with_images=True, with_findings=True, with_review=True))
    rows = [row(number) for number in range(n)]
    made = table_of(rows, schema)
    made.validate(full=True)
    expected = pa.Table.from_pylist(rows, schema=schema)
    assert made.equals(expected, check_metadata=True)
    assert made.to_pylist() == rows


def test_what_is_not_there_is_null_in_every_type():
    schema = arrow_schema(dataset_features(LABELS, with_images=True, with_findings=True, with_review=True))
    rows = [row(1), dict.fromkeys(row(1)), row(2, flags=["a", None], image={"bytes": None, "path": "x"})]
    made = table_of(rows, schema)
    made.validate(full=True)
    assert made.equals(pa.Table.from_pylist(rows, schema=schema))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"n_tiles": 2**31}, OverflowError),
        ({"n_tiles": "many"}, ValueError),
        ({"description": 7}, AttributeError),
        ({"flags": 7}, TypeError),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_refused(changes, error):
    schema = arrow_schema(dataset_features(LABELS, with_images=False))
    with pytest.raises(error):
        table_of([row(1, **changes)], schema)


def test_a_type_that_no_dataset_has_is_refused():
    with pytest.raises(TypeError, match="no column is made of"):
        table_of([{"when": {}}], pa.schema([("when", pa.map_(pa.string(), pa.string()))]))


def test_pandas_is_not_imported():
    code = "import sys, pyarrow as pa; from builders.columns import table_of\n"
    code += "table_of([{'a': 'x', 'b': None}], pa.schema([('a', pa.string()), ('b', pa.int64())]))\n"
    code += "assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
