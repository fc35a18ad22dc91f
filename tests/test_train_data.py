"""train/data.py: what training takes from a dataset, and what can never get through to a model."""

from dataclasses import fields, replace

import numpy as np
import pytest

from builders.build import BuildConfig, build
from builders.errors import UserError
from train.config import TrainConfig
from train.data import Examples, load_examples, split_of


@pytest.fixture
def dataset(tmp_path, photographs, make_run, private_cache):
    """A function that builds the dataset of a run, with its images or without."""

    def make(with_images=True, **run):
        out = tmp_path / "dataset"
        build(BuildConfig(images=photographs, runs=(make_run(**run),), out=out, with_images=with_images))
        return out

    return make


def load(dataset, tmp_path, **options):
    return load_examples(TrainConfig(dataset=str(dataset), out=tmp_path / "exp", **options))


def test_rows_are_those_of_the_dataset_in_the_order_of_their_ids(dataset, tmp_path, photographs):
    examples = load(dataset(), tmp_path)
    assert examples.image_ids == sorted(examples.image_ids)
    assert len(examples.labels) == len(examples.texts) == 26
    assert set(examples.splits) == {"official", "clean"}
    files = {file.read_bytes() for file in photographs.rglob("*.jpg")}
    assert all(examples.read_image(row) in files for row in range(26))


def test_no_path_and_no_file_name_is_kept():
    assert "path" not in " ".join(field.name for field in fields(Examples))


def test_joined_images_are_the_embedded_ones(dataset, tmp_path, photographs):
    embedded = load(dataset(), tmp_path)
    contents = [embedded.read_image(row) for row in range(26)]
    joined = load(dataset(with_images=False), tmp_path, images=photographs)
    assert [joined.read_image(row) for row in range(26)] == contents
    assert joined.fingerprint == embedded.fingerprint


def test_another_text_is_another_fingerprint_and_a_missing_one_is_counted(dataset, tmp_path):
    before = load(dataset(), tmp_path)
    after = load(dataset(text=lambda row: "" if row.split == "test" else "text"), tmp_path)
    assert before.fingerprint != after.fingerprint
    assert (before.n_without_text, after.n_without_text) == (0, 7)


def test_without_images_there_is_no_reader(dataset, tmp_path):
    assert load(dataset(with_images=False), tmp_path).read_image is None


def test_the_protocols_split_as_the_columns_say(dataset, tmp_path):
    examples = load(dataset(), tmp_path)
    for protocol in ("official", "clean"):
        split = split_of(examples, protocol)
        rows = np.concatenate([split.train, split.validation, split.test])
        assert len(set(rows.tolist())) == len(rows)
        assert len(rows) == (examples.splits[protocol] != "excluded").sum()
        groups = [{examples.groups[row] for row in part} for part in (split.train, split.validation, split.test)]
        if protocol == "clean":
            assert not groups[0] & groups[2]


def test_a_row_without_a_label_is_an_error(dataset, tmp_path, photographs):
    (photographs / "train" / "loose.jpg").write_bytes(next((photographs / "train" / "papule").iterdir()).read_bytes())
    with pytest.raises(UserError, match=r"1 rows of .* have no label, the first is image_id [0-9a-f]{16}"):
        load(dataset(), tmp_path)


@pytest.fixture
def examples():
    return Examples(
        image_ids=["a", "b", "c", "d"],
        image_sha256s=["1", "2", "3", "4"],
        labels=np.array([0, 1, 0, 1]),
        class_names=("macule", "papule"),
        texts=["", "", "", ""],
        groups=["1", "2", "3", "4"],
        splits={"official": np.array(["train", "train", "validation", "test"])},
        read_image=None,
        n_without_text=4,
    )


def test_a_protocol_that_the_dataset_lacks_is_a_clear_error(examples):
    with pytest.raises(UserError) as raised:
        split_of(examples, "clean")
    assert str(raised.value) == (
        "this dataset has no split_clean column; it has: official\n"
        "  fix: train with --protocol official, or build the dataset again"
    )


def test_an_empty_split_is_a_clear_error(examples):
    splits = {"official": np.array(["train", "train", "test", "test"])}
    with pytest.raises(UserError) as raised:
        split_of(replace(examples, splits=splits), "official")
    assert str(raised.value) == (
        "the official protocol has no rows in its validation split (rows by split: test 2, train 2)\n"
        "  fix: put images below train/ and test/, two or more per class, and build the dataset again; give a list "
        "rows of the split validation"
    )


def test_a_train_split_of_one_class_is_a_clear_error(examples):
    with pytest.raises(UserError, match="the train split of the official protocol holds a single class, 'macule'"):
        split_of(replace(examples, labels=np.array([0, 0, 0, 1])), "official")
