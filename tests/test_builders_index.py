"""The index: one row per file, whatever the file is; copies and contradictions are seen."""

import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.audit.features import read_columns
from builders.audit.groups import read_groups
from builders.audit.records import read_records
from builders.errors import UserError
from builders.index import index_images, read_index, stale_paths, summarise, write_index
from builders.run_folder import read_part
from builders.schema import image_id_of
from builders.shards import check_same_schema
from builders.sources import open_source
from tests.damage import write_odd_integers


def write_noise(path, seed, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for seed, path in enumerate(["train/papule/a.jpg", "train/plaque/b.jpg", "test/papule/c.jpg"]):
        write_noise(root / path, seed)
    return root


def test_rows_tell_what_the_files_are(photos):
    rows = index_images(photos)
    assert [row.path for row in rows] == ["test/papule/c.jpg", "train/papule/a.jpg", "train/plaque/b.jpg"]
    row = rows[1]
    data = (photos / row.path).read_bytes()
    assert row.image_id == hashlib.sha256(b"train/papule/a.jpg").hexdigest()[:16]
    assert row.image_sha256 == hashlib.sha256(data).hexdigest()
    assert (row.split, row.label, row.width_px, row.height_px) == ("train", "papule", 60, 40)
    assert (row.n_bytes, row.format, row.status, row.reason) == (len(data), "JPEG", "ok", "")


def test_odd_files_are_refused_and_the_rest_goes_on(photos):
    (photos / "train/papule/empty.jpg").write_bytes(b"")
    (photos / "train/papule/text.jpg").write_text("not an image")
    whole = (photos / "train/papule/a.jpg").read_bytes()
    (photos / "train/papule/half.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "train/papule/gone.jpg").symlink_to("nowhere.jpg")
    (photos / "train/papule/folder.jpg").mkdir()
    os.mkfifo(photos / "train/papule/pipe.jpg")
    (photos / "train/papule/circle.jpg").symlink_to("circle.jpg")
    with (photos / "train/papule/vast.jpg").open("wb") as file:
        file.truncate(40 * 1024**3)
    long_name = "x" * 240 + ".jpg"
    shutil.copy(photos / "train/plaque/b.jpg", photos / "train/papule" / long_name)
    shutil.copy(photos / "train/plaque/b.jpg", photos / "train/papule" / "ünïcödé ✓ \u202egpj.jpg")
    bad_name = os.fsdecode(b"bad-\xff.jpg")
    shutil.copy(photos / "train/plaque/b.jpg", photos / "train/papule" / bad_name)

    rows = {row.path.rpartition("/")[2]: row for row in index_images(photos, n_workers=0)}
    refused = {name: row.reason for name, row in rows.items() if row.status == "refused"}
    assert refused.pop("half.jpg").startswith("damaged: ")
    assert refused == {
        "empty.jpg": "the file is empty (0 bytes)",
        "text.jpg": "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF",
        "gone.jpg": "cannot be read: No such file or directory",
        "circle.jpg": "cannot be read: Too many levels of symbolic links",
        "vast.jpg": "cannot be read: it holds 42,949,672,960 bytes; at most 536,870,912 are read",
        "pipe.jpg": "cannot be read: not a regular file",
        "bad-\\xff.jpg": "the file name is not valid UTF-8; rename it",
    }
    assert rows[long_name].status == "ok"
    assert rows["ünïcödé ✓ \u202egpj.jpg"].status == "ok"
    assert "folder.jpg" not in rows


def test_copies_and_contradictions_are_counted(photos):
    shutil.copy(photos / "train/papule/a.jpg", photos / "test/papule/same.jpg")
    shutil.copy(photos / "train/plaque/b.jpg", photos / "train/papule/other.jpg")
    summary = summarise(index_images(photos))
    assert (summary.n_surplus_copies, summary.n_copies_across_splits) == (2, 1)
    assert summary.conflicts == [["train/papule/other.jpg", "train/plaque/b.jpg"]]
    assert summary.n_per_label == {"papule": 4, "plaque": 1}


def test_an_index_survives_its_file_and_equal_rows_give_equal_bytes(photos, tmp_path):
    rows = index_images(photos)
    write_index(tmp_path / "one.parquet", rows)
    write_index(tmp_path / "two.parquet", rows)
    assert read_index(tmp_path / "one.parquet") == rows
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_processes_and_this_process_agree(photos):
    assert index_images(photos, n_workers=2) == index_images(photos, n_workers=0)


def test_only_what_changed_is_stale(photos):
    rows = index_images(photos)
    write_noise(photos / "train/papule/a.jpg", 9, size=(80, 80))
    write_noise(photos / "train/papule/new.jpg", 10)
    with open_source(photos) as source:
        paths, later = list(source.paths()), time.time_ns()
        assert stale_paths(source, paths, rows, later) == ["train/papule/a.jpg", "train/papule/new.jpg"]
        os.utime(photos / "train/plaque/b.jpg", ns=(later + 1, later + 1))
        assert "train/plaque/b.jpg" in stale_paths(source, paths, rows, later)
        os.utime(photos / "train/plaque/b.jpg", (0, 0))  # as `cp -p` leaves a file that was put here just now
        assert "train/plaque/b.jpg" in stale_paths(source, paths, rows, later)
        suspect = image_id_of("test/papule/c.jpg")
        assert "test/papule/c.jpg" in stale_paths(source, paths, rows, later, suspects={suspect})


def test_a_zip_that_was_replaced_is_indexed_as_it_is_now(photos, tmp_path):
    archive = tmp_path / "photos.zip"

    def zip_of(*paths):
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in paths:
                zipped.write(photos / path, "train/papule/same.jpg" if path == paths[0] else path)
        return {row.path: row.image_sha256 for row in index_images(archive, n_workers=0)}

    first, second = "train/papule/a.jpg", "train/plaque/b.jpg"
    sha256_of = {path: hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in (first, second)}
    assert zip_of(first) == {"train/papule/same.jpg": sha256_of[first]}
    assert zip_of(second, first) == {"train/papule/same.jpg": sha256_of[second], first: sha256_of[first]}


def test_mistakes_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no image file in .*: looked for names ending in"):
        index_images(tmp_path / "empty")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(UserError, match="as an index"):
        read_index(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "read",
    [
        read_index,
        read_part,
        read_columns,
        lambda file: check_same_schema([file]),
        lambda file: read_groups(file.parent),
        lambda file: read_records(file, ("n",)),
    ],
    ids=["index", "part", "features", "shard", "groups", "list"],
)
def test_a_type_that_arrow_does_not_know_is_a_mistake_too(tmp_path, read):
    write_odd_integers(tmp_path / "groups.parquet")
    with pytest.raises(UserError, match=r"cannot read .*groups\.parquet.*: Integers not in cstdint"):
        read(tmp_path / "groups.parquet")


def test_the_real_set_shows_its_photograph_with_two_labels(shared_data):
    photos = shared_data / "pad_ufes_20"
    summary = summarise(index_images(photos))
    assert (summary.n_files, summary.n_refused) == (307, 0)
    assert summary.n_per_split == {"test": 60, "train": 247}
    assert [sorted(path.rpartition("/")[2] for path in group) for group in summary.conflicts] == [
        ["PAT_759_1433_914.jpg", "PAT_759_1538_566.jpg"]
    ]


@pytest.fixture
def as_nobody():
    """Run as a user whom file permissions bind; root reads everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file_is_refused_and_an_unreadable_folder_is_named(as_nobody):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_noise(root / "train/papule/a.jpg", 0)
        write_noise(root / "train/papule/locked.jpg", 1)
        (root / "train/papule/locked.jpg").chmod(0)
        rows = {row.path: row for row in index_images(root, n_workers=0)}
        assert rows["train/papule/a.jpg"].status == "ok"
        assert rows["train/papule/locked.jpg"].reason == "cannot be read: Permission denied"
        (root / "train/papule").chmod(0)
        with pytest.raises(UserError, match=r"cannot list .*papule: Permission denied\n  fix: chmod u\+rx "):
            index_images(root, n_workers=0)
        (root / "train/papule").chmod(0o700)
