"""Arrow columns from rows, without pandas: `pa.array` of a Python list imports it, a third of a second in each process.

Buffers are laid out by hand, as https://arrow.apache.org/docs/format/Columnar.html says. A test compares every type
with what `pa.Table.from_pylist` makes of the same rows.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Row = dict[str, Any]
_NOTHING: dict[int, Any] = {pa.string().id: "", pa.binary().id: b"", pa.list_(pa.string()).id: (), pa.struct([]).id: {}}


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as a table of this schema: texts, bytes, numbers, truth values, lists and structs of them, and None.

    Raises `TypeError` for other types, and what the values raise that do not fit theirs.
    """
    columns = [_array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    n, there = len(values), None
    if None in values:
        there = _bits(np.array([value is not None for value in values], dtype=np.bool_))
        nothing = _NOTHING.get(kind.id, 0)
        values = [nothing if value is None else value for value in values]
    if pa.types.is_struct(kind):
        children = [_array([value.get(field.name) for value in values], field.type) for field in kind]
        return pa.Array.from_buffers(kind, n, [there], children=children)
    if pa.types.is_list(kind):
        inner = _array(list(chain.from_iterable(values)), kind.value_type)
        return pa.Array.from_buffers(kind, n, [there, _offsets(values)], children=[inner])
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        encoded = [value.encode() for value in values] if pa.types.is_string(kind) else values
        return pa.Array.from_buffers(kind, n, [there, _offsets(encoded), pa.py_buffer(b"".join(encoded))])
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, n, [there, _bits(np.array(values, dtype=np.bool_))])
    if pa.types.is_primitive(kind):
        return pa.Array.from_buffers(kind, n, [there, pa.py_buffer(np.array(values, dtype=kind.to_pandas_dtype()))])
    raise TypeError(f"no column is made of {kind}")


def _offsets(values: Sequence[Any]) -> pa.Buffer:
    """Where each value begins and ends in the joined ones; together they stay below 2 GiB."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{ends[-1]} bytes in one column of a row group")
    return pa.py_buffer(ends.astype(np.int32))


def _bits(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
