"""Parquet files of images, one or a folder of them, as `datasets` and the Hub write them; read row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Self

from builders.errors import UserError
from builders.sources.folder import archives_below
from builders.sources.layout import changed_ns
from builders.sources.naming import image_name, path_part, split_and_folders, unique_path, without_common
from builders.sources.parquet_table import Columns, read_columns, read_rows
from builders.sources.parquet_values import ParquetValues, Place


@dataclass(frozen=True, slots=True)
class _Shard:
    """One file; the paths of its rows begin with `folders` and `split`."""

    file: Path
    folders: list[str]
    split: str
    columns: Columns


class ParquetSource:
    """Every row with an image, by a path made of what the table says: `<split>/<label>/<file name or row number>`.

    The split stands in a file's name or folder, all is `train` where it does not; folders in which files differ come
    first. A name that several rows share is told apart by shard and row. Files without a column of images are skipped,
    as text files in a folder are.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._values = ParquetValues()
        self._shards = _shards(Path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._values.close()

    def paths(self) -> Iterator[str]:
        """Made-up relative paths of all rows, in their order, which is the quickest to read in."""
        yield from self._places

    def read(self, path: str) -> bytes:
        """The bytes of one row's image, as they were put in; `OSError` if they are damaged or not there."""
        return self._values.read(self._place(path))

    def size(self, path: str) -> int:
        """The length of one row's image in bytes; `OSError` if it is not there."""
        return self._values.size(self._place(path))

    def modified_ns(self, path: str) -> int:
        """When the row's file was last changed, in nanoseconds since 1970."""
        return changed_ns(self._place(path).file.stat())

    def _place(self, path: str) -> Place:
        try:
            number, group, row = self._places[path]
        except KeyError as error:
            raise FileNotFoundError(f"no row goes by '{path}' in {PurePosixPath(self.name).name}") from error
        shard = self._shards[number]
        return Place(shard.file, shard.columns.image, group, row, shard.columns.chunks[group])

    @cached_property
    def _places(self) -> dict[str, tuple[int, int, int]]:
        """Path -> number of the shard, row group, row in it."""
        places: dict[str, tuple[int, int, int]] = {}
        for number, shard in enumerate(self._shards):
            for row in read_rows(shard.file, shard.columns):
                mark = f"{path_part(shard.file.stem)}-{row.number:06d}"
                name = image_name(row.name) if row.name else f"{mark}.jpg"
                label = [path_part(row.label)] if row.label else []
                path = "/".join([*shard.folders, shard.split, *label, name])
                places[unique_path(path, places, mark)] = (number, row.group, row.row)
        return places


def _shards(root: Path) -> list[_Shard]:
    """The files with images at or below `root`, in the order of their names. Raises `UserError` where there is none."""
    names = archives_below(root, ".parquet") if root.is_dir() else [""]
    shards: list[_Shard] = []
    others: list[str] = []
    for name in names:
        columns, column_names = read_columns(root / name)
        if columns is None:
            others.append(f"{name or root.name} has {', '.join(column_names)}")
            continue
        split, folders = split_and_folders(name or root.name)
        shards.append(_Shard(root / name, folders, split or "train", columns))
    if not shards:
        raise UserError(
            f"no column of images in {root}: {'; '.join(others[:3])}",
            "name the image files' bytes `image`, as Dataset.to_parquet does with an Image() feature",
        )
    differing = without_common([shard.folders for shard in shards])
    return [
        _Shard(each.file, folders, each.split, each.columns) for each, folders in zip(shards, differing, strict=True)
    ]
