"""The shards of one set before any row is read: names, one schema, class names, and the layout that readers rely on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from builders.check.fault import Fault, shown, visible
from builders.check.provenance import provenance_file
from builders.dataset_folder import SPLITS, DescriptionSet
from builders.features import dataset_features
from builders.shards import MAX_GROUP_BYTES, MAX_ROWS_WITH_IMAGES, MAX_ROWS_WITHOUT
from builders.sources.layout import MAX_FILE_BYTES
from builders.sources.parquet_footer import Leaf, RowGroup, row_groups

_NAME = re.compile(rf"({'|'.join(SPLITS)})-([0-9]{{5}})-of-([0-9]{{5}})\.parquet")
# A group holds at most this, or one row that is larger: a photograph, and a description beside it. Parquet's own count
# is of pages with their headers; an eighth on top is more than it ever adds.
_READABLE_BYTES = (MAX_FILE_BYTES + MAX_GROUP_BYTES) * 9 // 8


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard whose footer can be read: `path`, its `split`, and its name relative to the dataset folder."""

    path: Path
    split: str
    name: str
    schema: pa.Schema
    row_groups: list[RowGroup]


@dataclass(frozen=True, slots=True)
class CheckedShards:
    """What the footers of one set tell.

    `readable` shards have the columns that the set needs; `is_whole` if all of them do. `features` are those of the
    first shard, None if nobody can tell.
    """

    readable: list[Shard]
    is_whole: bool
    features: datasets.Features | None
    faults: list[Fault]


def check_shards(folder: Path, described: DescriptionSet) -> CheckedShards:
    """Check names and footers of a set's shards."""
    faults = list(_check_names(folder, described))
    shards: list[Shard] = []
    for split, files in described.shards.items():
        for path in files:
            name = path.relative_to(folder).as_posix()
            try:
                shards.append(Shard(path, split, name, pq.read_schema(path), row_groups(path)))
            except (OSError, ValueError, pa.ArrowException) as error:
                faults.append(
                    Fault("shards", name, "footer", f"cannot be read: {_first_line(error)}", "a Parquet file")
                )
    if not shards:
        faults.append(Fault("shards", described.name, "", "no shard that can be read", "at least one"))
        return CheckedShards([], False, None, faults)
    try:
        features = datasets.Features.from_arrow_schema(shards[0].schema)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        allowed = "the features of `datasets`"
        faults.append(Fault("shards", shards[0].name, "metadata", f"cannot be read: {_first_line(error)}", allowed))
        return CheckedShards([], False, None, faults)
    faults += _check_features(described, shards[0], features)
    readable: list[Shard] = []
    for shard in shards:
        faults += _check_same(shard, shards[0], features)
        faults += _check_layout(shard, with_images="image" in features)
        if shard.schema.remove_metadata() == features.arrow_schema.remove_metadata() and _is_bounded(shard):
            readable.append(shard)
    if not _has_needed_columns(features):
        readable = []
    n_files = sum(len(files) for files in described.shards.values())
    return CheckedShards(readable, len(readable) == n_files, features, faults)


def _check_names(folder: Path, described: DescriptionSet) -> Iterator[Fault]:
    """Each split's shards are numbered from 0 to N - 1, and nothing else is in the set's folder."""
    counts: dict[str, set[tuple[int, int]]] = {}
    for path in sorted((folder / described.name).glob("*")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            name = visible(path.relative_to(folder).as_posix())
            yield Fault("shards", name, "", "a file that is no shard", "SPLIT-NNNNN-of-NNNNN.parquet")
        else:
            counts.setdefault(match[1], set()).add((int(match[2]), int(match[3])))
    for split, numbers in counts.items():
        n_shards = max(total for _, total in numbers)
        if numbers != {(number, n_shards) for number in range(n_shards)}:
            seen = ", ".join(f"{number:05d}-of-{total:05d}" for number, total in sorted(numbers))
            yield Fault("shards", f"{described.name}/{split}-*", "", seen, f"00000 to {n_shards - 1:05d}, each once")


def _check_features(described: DescriptionSet, shard: Shard, features: datasets.Features) -> Iterator[Fault]:
    """The columns are those of this schema version, in its order, and the class names can be relied on."""
    label = features.get("label")
    if not isinstance(label, datasets.ClassLabel):
        yield Fault("shards", shard.name, "label", shown(label), "a ClassLabel")
        return
    if label.names != sorted(set(label.names)) or "" in label.names:
        yield Fault("shards", shard.name, "label", shown(label.names), "class names in order, each once, none empty")
    expected = _expected_features(features, label.names)
    for column in [*expected, *(each for each in features if each not in expected)]:
        if features.get(column) != expected.get(column):
            seen, allowed = (shown(each.get(column)) if column in each else "nothing" for each in (features, expected))
            yield Fault("shards", shard.name, f"column {visible(column)}", seen, allowed)
    if list(features) != list(expected) and features.keys() == expected.keys():
        yield Fault("shards", shard.name, "columns", ", ".join(features), ", ".join(expected))
    for column, stated, key in (
        ("image", described.build["with_images"], "build.with_images"),
        ("findings", bool(described.run.get("schema")), "run.schema"),
        ("review", bool(described.build.get("n_reviewed")), "build.n_reviewed"),
    ):
        if (column in features) != stated:
            seen = "there" if column in features else "not there"
            allowed = f"as {provenance_file(described)} says in {key}: {'there' if stated else 'not there'}"
            yield Fault("shards", shard.name, f"column {column}", seen, allowed)


def _expected_features(features: datasets.Features, label_names: list[str]) -> datasets.Features:
    """What `build` writes for these classes, with those optional columns that are there."""
    written = dataset_features(
        label_names, "image" in features, with_findings="findings" in features, with_review="review" in features
    )
    return datasets.Features.from_dict(written)


def _has_needed_columns(features: datasets.Features) -> bool:
    label = features.get("label")
    names = label.names if isinstance(label, datasets.ClassLabel) else []
    needed = _expected_features(features, names)
    return all(features.get(column) == needed[column] for column in needed)


def _check_same(shard: Shard, first: Shard, features: datasets.Features) -> Iterator[Fault]:
    """`datasets` reads the metadata of the first shard alone: one with other class names is mislabelled silently."""
    if shard.schema.equals(first.schema, check_metadata=True):
        return
    try:
        own = datasets.Features.from_arrow_schema(shard.schema)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        allowed = f"the features of {first.name}"
        yield Fault("shards", shard.name, "metadata", f"cannot be read: {_first_line(error)}", allowed)
        return
    label, other = own.get("label"), features.get("label")
    if label != other:
        seen, allowed = (getattr(each, "names", each) for each in (label, other))
        yield Fault("shards", shard.name, "class names", shown(seen), f"{shown(allowed)}, as in {first.name}")
    else:
        seen = shown(str(shard.schema.remove_metadata()) if own != features else shard.schema.metadata)
        yield Fault("shards", shard.name, "schema", seen, f"columns and metadata as in {first.name}")


def _check_layout(shard: Shard, with_images: bool) -> Iterator[Fault]:
    """Row groups that a viewer can read, sorted by `image_id`, photographs as plain bytes."""
    max_rows = MAX_ROWS_WITH_IMAGES if with_images else MAX_ROWS_WITHOUT
    if not any(group.n_rows for group in shard.row_groups):
        yield Fault("shards", shard.name, "", "no rows", "at least one; a split without rows has no shard")
    for number, group in enumerate(shard.row_groups):
        place = f"row group {number}"
        if group.n_rows > max_rows:
            yield Fault("shards", shard.name, place, f"{group.n_rows} rows", f"at most {max_rows}")
        if group.n_bytes > _READABLE_BYTES:
            yield Fault("shards", shard.name, place, f"{group.n_bytes} bytes", f"at most {_READABLE_BYTES}")
        if group.sorted_by != ["image_id"]:
            yield Fault("shards", shard.name, place, f"sorted by {shown(group.sorted_by)}", "sorted by image_id")
        for column in group.columns:
            yield from _check_column(shard, f"{place}, column {visible(column.path)}", column)


def _check_column(shard: Shard, place: str, column: Leaf) -> Iterator[Fault]:
    if not column.has_page_index:
        yield Fault("shards", shard.name, place, "no page index", "a page index")
    if column.path == "image.bytes":
        encodings = set(column.encodings) - {"RLE"}  # RLE is that of the levels
        if column.codec != "UNCOMPRESSED" or encodings != {"PLAIN"}:
            seen = f"{column.codec}, {', '.join(sorted(encodings))}"
            yield Fault("shards", shard.name, place, seen, "UNCOMPRESSED, PLAIN")


def _is_bounded(shard: Shard) -> bool:
    """Whether each row group fits into the memory that the largest row of ours needs."""
    return all(group.n_bytes <= _READABLE_BYTES for group in shard.row_groups)


def _first_line(error: Exception) -> str:
    return visible(str(error).split("\n", 1)[0])
