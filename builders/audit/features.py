"""Features of any encoder, read from an npz or Parquet file and matched with the files under audit."""

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.audit.config import AuditConfig
from builders.errors import UserError, choose
from builders.files import read_table, sha256_of
from builders.schema import IndexRow

_FIX = "an .npz or .parquet file, no pickle"
# What NumPy was seen to raise on damaged files; its documentation promises only OSError and ValueError.
_DAMAGE = (
    *(OSError, ValueError, EOFError, TypeError, AttributeError, LookupError, SyntaxError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
KEYS = ("path", "image_sha256", "sha256", "image_id")
Floats = npt.NDArray[np.float32]
Columns = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Features:
    """`vectors` (n, width) of `rows`, in their order: each encoder centred, scaled by its own sd, and put side by side.

    One standard deviation per encoder, not per dimension: an encoder's large directions stay large, and no encoder
    outweighs another by its units. `n_missing` counts files that the features file does not know.
    """

    rows: list[IndexRow]
    vectors: Floats
    encoders: tuple[str, ...]
    file_sha256: str
    n_missing: int


def read_features(config: AuditConfig, rows: list[IndexRow], copies: list[IndexRow]) -> Features:
    """The features of those `rows` that `config.features` knows, by themselves or by one of their byte `copies`.

    Raises `UserError` where the file cannot be used.
    """
    file = config.features
    assert file is not None
    columns = read_columns(file)
    key = next((key for key in KEYS if key in columns), None)
    if key is None:
        raise UserError(
            f"{file} names no files: it has {', '.join(columns)}", f"add one of the columns {', '.join(KEYS)}"
        )
    keys = [str(each) for each in columns[key]]
    arrays = {name: array for name in columns if name not in KEYS and _is_matrix(array := columns[name])}
    if not arrays:
        raise UserError(f"{file} holds no features: it needs a float array of (files, width) beside '{key}'")
    for name in config.encoders:
        choose("encoder", name, sorted(arrays))
    encoders = config.encoders or tuple(sorted(arrays))
    place_of = {value: place for place, value in enumerate(keys)}
    attribute = "image_sha256" if key == "sha256" else key
    known = [row for row in copies if getattr(row, attribute) in place_of]
    of_bytes = {row.image_sha256: place_of[getattr(row, attribute)] for row in reversed(known) if row.image_sha256}
    found = ((row, place_of.get(getattr(row, attribute), of_bytes.get(row.image_sha256))) for row in rows)
    places = [(row, place) for row, place in found if place is not None]
    if len(places) < 2:
        raise UserError(
            f"{file} knows {len(places)} of the {len(rows):,} files under audit; its first {key} is"
            f" '{keys[0] if keys else ''}', the audit's is '{getattr(rows[0], attribute) if rows else ''}'"
        )
    where = np.array([place for _, place in places])
    scaled = [_scaled(file, name, arrays[name], len(keys), where) for name in encoders]
    return Features(
        rows=[row for row, _ in places],
        vectors=np.concatenate(scaled, axis=1),
        encoders=encoders,
        file_sha256=sha256_of(file),
        n_missing=len(rows) - len(places),
    )


def read_columns(file: Path) -> Columns:
    """The arrays in an npz or Parquet file by name. Raises `UserError` where it cannot be read."""
    return _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_npz(file)


def _scaled(file: Path, name: str, array: Any, n_keys: int, where: npt.NDArray[np.int64]) -> Floats:
    """The wanted rows of one encoder's features, with mean 0 per dimension and standard deviation 1 overall."""
    if len(array) != n_keys:
        raise UserError(f"{file}: '{name}' has {len(array):,} rows, but {n_keys:,} files are named")
    vectors = np.asarray(array[where], dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"{file}: '{name}' holds values that are not finite", "compute the features again, in float32")
    vectors = vectors - vectors.mean(axis=0)
    deviation = float(vectors.std())
    if deviation == 0:
        raise UserError(f"{file}: '{name}' is the same for all files")
    return vectors / deviation


def _is_matrix(array: Any) -> bool:
    return array.ndim == 2 and array.shape[1] > 0 and np.issubdtype(array.dtype, np.floating)


def _read_npz(file: Path) -> Columns:
    try:
        with file.open("rb") as opened:  # NumPy leaves a damaged one open
            archive: Any = np.load(opened, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                fix = "save it beside the files' paths: numpy.savez('features.npz', path=paths, encoder=features)"
                raise UserError(f"{file} is one array, and does not tell whose features it holds", fix)
            return {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise UserError(f"cannot read features from {file}: {error}", _FIX) from error


def _read_parquet(file: Path) -> Columns:
    try:
        table = read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read features from {file}: {error}", _FIX) from error
    columns = {name: _as_array(table[name].combine_chunks()) for name in table.column_names}
    return {name: array for name, array in columns.items() if array is not None}


def _as_array(column: Any) -> npt.NDArray[Any] | None:
    """Strings, or lists of one length as a matrix; None for a column that is neither."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=np.str_)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type) or column.null_count:
        return None
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1) if len(column) and len(values) % len(column) == 0 else None
