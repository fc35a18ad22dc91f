"""From a dataset to arrays: labels, texts and splits; ids only to name rows in outputs, paths not at all."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import numpy.typing as npt

from builders import load
from builders.dataset_folder import choose_set, read_sets
from builders.errors import UserError
from builders.loading import locate
from train.config import Protocol, TrainConfig

Rows = npt.NDArray[np.int64]  # positions in Examples


@dataclass(frozen=True, slots=True)
class Examples:
    """A dataset's rows in the order of `image_ids` (sorted), which no model ever sees.

    `texts` has "" where there is no usable description. `groups` names copies of the same photograph alike. `splits`
    maps a protocol to train | validation | test | excluded per row. `read_image` gives an image's bytes by position,
    and is None where the dataset holds no images. `n_without_text` is told, and `n_without_features`: rows of a list
    that are left out. `commit` is that of the Hub's repository which was really read, None for a folder. `described_by`
    is the run.json of the description set.
    """

    image_ids: list[str]
    image_sha256s: list[str]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    texts: list[str]
    groups: list[str]
    splits: dict[Protocol, npt.NDArray[np.str_]]
    read_image: Callable[[int], bytes] | None
    n_without_text: int
    n_without_features: int = 0
    commit: str | None = None
    described_by: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over everything that training depends on; another one means another dataset."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        columns = zip(self.image_ids, self.image_sha256s, self.labels.tolist(), self.texts, self.groups, strict=True)
        for row in columns:
            digest.update(repr(row).encode())
        for protocol, split in sorted(self.splits.items()):
            digest.update(repr((protocol, split.tolist())).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on, to select the epoch on, and to test on once."""

    train: Rows
    validation: Rows
    test: Rows


def load_examples(config: TrainConfig) -> Examples:
    """Open the dataset and take from it what training may use.

    Raises `UserError` on rows without a label, and on missing columns.
    """
    if config.features:
        from train.given import given_examples  # it makes Examples

        return given_examples(config)
    folder = locate(config.dataset, set_name=config.set_name, revision=config.revision)
    loaded = load(folder, set_name=config.set_name, images=config.images)
    examples = examples_of(datasets.concatenate_datasets(list(loaded.values())), config.dataset)
    made_by = choose_set(read_sets(Path(folder)), config.set_name).run
    commit = None if Path(config.dataset).is_dir() else Path(folder).name  # a snapshot is called after its commit
    return replace(examples, commit=commit, described_by=made_by)


def examples_of(rows: datasets.Dataset, name: str) -> Examples:
    """The examples in the rows of a dataset that errors call `name`."""
    wanted = ["image_id", "image_sha256", "label", "description", "split_official"]
    absent = [column for column in wanted if column not in rows.column_names]
    if absent:
        raise UserError(
            f"the dataset {name} has no column {', '.join(absent)}; it has: {', '.join(rows.column_names)}",
            "vl-dermnet build IMAGES --run RUN --out DATASET",
        )
    rows = rows.select(np.argsort(rows["image_id"]))
    labels = np.asarray([-1 if label is None else label for label in rows["label"]], dtype=np.int64)
    unlabelled = np.flatnonzero(labels < 0)
    if len(unlabelled):
        raise UserError(
            f"{len(unlabelled)} rows of {name} have no label, the first is image_id {rows['image_id'][unlabelled[0]]}",
            "put every image into a folder named after its class, and build the dataset again",
        )
    texts = [text or "" for text in rows["description"]]
    sha256s: list[str] = list(rows["image_sha256"])
    stated: list[Any] = rows["duplicate_group"] if "duplicate_group" in rows.column_names else [None] * len(rows)
    splits: dict[Protocol, npt.NDArray[np.str_]] = {"official": np.asarray(rows["split_official"], dtype=np.str_)}
    if "split_clean" in rows.column_names and all(rows["split_clean"]):
        splits["clean"] = np.asarray(rows["split_clean"], dtype=np.str_)
    return Examples(
        image_ids=list(rows["image_id"]),
        image_sha256s=sha256s,
        labels=labels,
        class_names=tuple(cast(datasets.ClassLabel, rows.features["label"]).names),
        texts=texts,
        groups=[sha if group in (None, "") else str(group) for sha, group in zip(sha256s, stated, strict=True)],
        splits=splits,
        read_image=_image_reader(rows),
        n_without_text=sum(not text.strip() for text in texts),
    )


def _image_reader(rows: datasets.Dataset) -> Callable[[int], bytes] | None:
    if "image" not in rows.column_names:
        return None
    undecoded = rows.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))

    def read_image(row: int) -> bytes:
        image: dict[str, Any] | None = undecoded[row]["image"]
        if image is None:
            raise UserError(
                f"the image of row {row}, image_id {rows['image_id'][row]}, is missing",
                "build the dataset again with its images, or join them: --images FOLDER",
            )
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    return read_image


def split_of(examples: Examples, protocol: Protocol) -> Split:
    """The rows of a protocol. Raises `UserError` on an empty split and on a train split of one class."""
    column = examples.splits.get(protocol)
    if column is None:
        raise UserError(
            f"this dataset has no split_{protocol} column; it has: {', '.join(examples.splits)}",
            f"train with --protocol {next(iter(examples.splits))}, or build the dataset again",
        )
    split = Split(*(np.flatnonzero(column == name) for name in ("train", "validation", "test")))
    for name in ("train", "validation", "test"):
        if not len(getattr(split, name)):
            seen = ", ".join(f"{value} {int((column == value).sum())}" for value in sorted(set(column.tolist())))
            raise UserError(
                f"the {protocol} protocol has no rows in its {name} split (rows by split: {seen})",
                "put images below train/ and test/, two or more per class, and build the dataset again; give a list "
                f"rows of the split {name}",
            )
    classes = np.unique(examples.labels[split.train])
    if len(classes) < 2:
        raise UserError(
            f"the train split of the {protocol} protocol holds a single class, '{examples.class_names[classes[0]]}': "
            "there is nothing to learn",
            "add images of at least one more class and build the dataset again; give a list rows of one",
        )
    return split
