import logging
import os
import shutil
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import builders
from builders.build import BuildConfig, build
from builders.dataset_folder import read_sets
from builders.errors import UserError
from builders.join_images import match_images
from builders.loading import load, locate

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def dataset(photographs, make_run, tmp_path):
    out = tmp_path / "data [set]* ü"  # `datasets` takes file names for patterns
    build(BuildConfig(images=photographs, runs=(make_run(), make_run("other", text=lambda row: row.path)), out=out))
    return out


def test_the_package_offers_load_and_stays_light():
    assert builders.load is load
    code = "import sys, builders; print('datasets' in sys.modules, 'pyarrow' in sys.modules, callable(builders.load))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False False True\n"
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        builders.lod  # noqa: B018 - the look-up is the test


def test_a_set_is_chosen_by_name_and_the_primary_by_default(dataset):
    assert load(dataset)["test"][0]["description"].startswith("A photograph of skin")
    named = load(str(dataset), set_name="other")
    assert list(named) == ["train", "test"]
    assert all(row["description"] == row["path"] for row in named["train"])
    with pytest.raises(UserError) as error:
        load(dataset, set_name="third")
    assert str(error.value) == "unknown description set 'third'; choose one of: tiny-doctor, other"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_photographs_are_joined_by_path_and_bytes(dataset, photographs, tmp_path, kind):
    images = photographs if kind == "folder" else shutil.make_archive(str(tmp_path / "zipped"), "zip", photographs)
    joined = load(dataset, images=images)
    plain = load(dataset)
    for split, part in joined.items():
        assert part.column_names == ["image", *plain[split].column_names]
        assert part.features["image"] == datasets.Image()
        assert part.remove_columns("image").to_list() == plain[split].to_list()
        stored = part.cast_column("image", datasets.Image(decode=False))
        for row in stored:
            content = row["image"]["bytes"]
            if kind == "folder":
                assert content is None  # read when it is looked at
                assert row["image"]["path"] == str(photographs / row["path"])
            else:
                assert content == (photographs / row["path"]).read_bytes()
    sideways = next(row for row in joined["train"] if row["path"].endswith("pap-1.jpg"))
    assert sideways["image"].size == (16, 24)


def test_a_changed_zip_is_read_again(dataset, photographs, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", photographs)
    load(dataset, images=zipped)
    shutil.rmtree(photographs / "test" / "papule")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", photographs)
    joined = load(dataset, images=zipped, allow_missing=True)
    assert sum(row["image"] is None for row in joined["test"]) == 3


def test_shards_that_were_replaced_with_their_time_kept_are_read_again(dataset, caplog):
    """As `cp -p`, `tar` and `rsync -t` do; `datasets` alone would answer from its cache."""
    load(dataset)
    (shard,) = (dataset / "tiny-doctor").glob("train*.parquet")
    before, rows = shard.stat(), pq.read_table(shard)
    at = rows.column_names.index("description")
    changed = rows.set_column(at, rows.schema.field(at), pa.array(["other words"] * len(rows), rows.schema.types[at]))
    pq.write_table(changed, shard)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert set(load(dataset)["train"]["description"]) == {"other words"}
    assert "held other rows than tiny-doctor: read again" in caplog.text
    caplog.clear()
    assert set(load(dataset)["train"]["description"]) == {"other words"}
    assert not caplog.records


def test_missing_and_changed_photographs_are_named(dataset, photographs, caplog):
    for number in range(6):
        (photographs / f"train/papule/pap-{number}.jpg").unlink()
    (photographs / "test/plaque/pla-0.jpg").write_bytes(b"other")
    (photographs / "test/plaque/new.jpg").write_bytes(b"other")
    trouble = (
        f"6 of 26 images are not in {photographs}: train/papule/pap-0.jpg, train/papule/pap-1.jpg, "
        "train/papule/pap-2.jpg, train/papule/pap-3.jpg, train/papule/pap-4.jpg and 1 more\n"
        f"1 of 26 images in {photographs} have other bytes: test/plaque/pla-0.jpg"
    )
    with pytest.raises(UserError) as error:
        load(dataset, images=photographs)
    assert str(error.value) == (
        f"{trouble}\n  fix: point `images` to the folder or zip that was indexed, or pass allow_missing=True"
    )
    with caplog.at_level(logging.INFO, logger="builders.loading"):
        joined = load(dataset, images=photographs, allow_missing=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"2 files in {photographs} are not in the dataset: test/plaque/new.jpg, train/plaque/broken.jpg",
        trouble,
    ]
    absent = [row["path"] for split in joined.values() for row in split if row["image"] is None]
    assert sorted(absent) == ["test/plaque/pla-0.jpg", *(f"train/papule/pap-{number}.jpg" for number in range(6))]


def test_an_unreadable_photograph_counts_as_missing(photographs):
    (photographs / "train/papule/pap-0.jpg").unlink()
    (photographs / "train/papule/pap-0.jpg").mkdir()
    assert match_images(photographs, {"train/papule/pap-0.jpg": "0"}).missing == ["train/papule/pap-0.jpg"]


def test_a_dataset_cannot_reach_outside_the_photographs(photographs):
    with pytest.raises(UserError, match="leaves"):
        match_images(photographs, {"../secret.jpg": "0"})


def test_images_are_not_joined_where_they_are_already(photographs, make_run, tmp_path):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "out", with_images=True))
    with pytest.raises(UserError) as error:
        load(tmp_path / "out", images=photographs)
    assert str(error.value) == "this set holds its images already; leave out `images`"


def test_shards_that_disagree_on_classes_are_refused(dataset, photographs, make_run, tmp_path):
    fewer = shutil.copytree(photographs, tmp_path / "fewer", ignore=shutil.ignore_patterns("papule"))
    build(BuildConfig(images=fewer, runs=(make_run("tiny-doctor", images=fewer),), out=tmp_path / "fewer-dataset"))
    shard = "tiny-doctor/test-00000-of-00001.parquet"
    shutil.copy(tmp_path / "fewer-dataset" / shard, dataset / shard)
    with pytest.raises(UserError, match="disagree on columns or class names; labels would be mixed up"):
        load(dataset)


def test_a_set_without_shards_is_named(dataset):
    shutil.rmtree(dataset / "other")
    with pytest.raises(UserError) as error:
        load(dataset, set_name="other")
    assert str(error.value) == f"the set 'other' of {dataset} has no shards: the folder is incomplete"


def test_what_is_no_dataset_is_said_so(tmp_path):
    with pytest.raises(UserError) as error:
        load(tmp_path / "nowhere")
    assert str(error.value) == (
        f"no dataset folder at {tmp_path}/nowhere, and it is no Hub repository's id (OWNER/NAME)\n"
        "  fix: check the path; `vl-dermnet build IMAGES --run RUN --out DATASET` makes such a folder"
    )
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a dataset folder: it holds no provenance/*.json\n"
        f"  fix: vl-dermnet build IMAGES --run RUN --out '{tmp_path}'"
    )


def test_a_folder_has_no_revisions(dataset):
    with pytest.raises(UserError) as error:
        locate(dataset, revision="main")
    assert str(error.value) == f"{dataset} is a local folder and has no revisions; leave out the revision 'main'"


def test_a_strangers_set_name_cannot_leave_the_folder(dataset):
    (dataset / "provenance" / "a b.json").write_text((dataset / "provenance" / "other.json").read_text())
    with pytest.raises(UserError, match="'a b' cannot name a description set"):
        read_sets(dataset)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [("{}", "is_primary, build, run, summary"), ('{"is_primary": true, "run": {}}', "build, summary")],
)
def test_provenance_that_lacks_something_is_named(dataset, text, lacks):
    file = dataset / "provenance" / "other.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_sets(dataset)
    assert str(error.value) == (f"{file} is damaged: it lacks {lacks}\n  fix: build or download the dataset again")
