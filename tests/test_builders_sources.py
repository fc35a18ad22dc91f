"""Sources: every kind gives the same paths and bytes, and nothing leaves its root."""

import io
import os
import random
import re
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders.errors import UserError
from builders.index import index_images
from builders.sources import SOURCES, open_source, pinned
from builders.sources.layout import is_image_path, split_and_label
from builders.sources.zip import ZipSource
from tests.damaged_bytes import outcomes_of_damage

FILES = {
    "train/papule/papule-1.jpg": b"1",
    "train/papule/papule-2.JPG": b"2",
    "test/plaque/päpel ünïcode.png": b"3",
    "test/plaque/notes.txt": b"no",
    "test/plaque/.hidden.jpg": b"no",
    "__MACOSX/test/plaque/a.jpg": b"no",
}
IMAGES = ["test/plaque/päpel ünïcode.png", "train/papule/papule-1.jpg", "train/papule/papule-2.JPG"]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path)


def write_folder(tmp_path):
    for path, data in FILES.items():
        file = tmp_path / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "photos"


def write_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as zipped:
        for path, data in FILES.items():
            zipped.writestr(path, data)
    return tmp_path / "photos.zip"


def write_parquet(tmp_path):
    (tmp_path / "tables").mkdir()
    for split in ("test", "train"):
        paths = [path for path in IMAGES if path.startswith(split)]
        columns = {
            "image": [{"bytes": FILES[path], "path": path.rpartition("/")[2]} for path in paths],
            "label": [path.split("/")[1] for path in paths],
        }
        pq.write_table(pa.table(columns), tmp_path / "tables" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "tables"


def write_webdataset(tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for path, data in FILES.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tmp_path / "photos.tar"


WRITERS = {"folder": write_folder, "parquet": write_parquet, "webdataset": write_webdataset, "zip": write_zip}


def test_every_kind_of_source_is_tested():
    assert {*WRITERS, "hub"} == set(SOURCES)  # that of the Hub needs a server: test_builders_sources_hub.py


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_every_source_lists_and_reads_the_same(kind, tmp_path):
    images = WRITERS[kind](tmp_path)
    with open_source(images) as source, open_source(str(images)) as again:
        assert source.name == str(images) == pinned(images)
        assert sorted(source.paths()) == IMAGES
        for path in reversed(IMAGES):
            assert source.read(path) == FILES[path] == again.read(path)
            assert source.size(path) == len(FILES[path])
            assert abs(source.modified_ns(path) - time.time_ns()) < 60e9
        for question in (source.read, source.size):
            with pytest.raises(OSError, match=r"nowhere"):
                question("train/nowhere.jpg")


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_threads_may_share_a_source(kind, tmp_path):
    with open_source(WRITERS[kind](tmp_path)) as source, ThreadPoolExecutor(8) as threads:
        asked = IMAGES * 40
        assert list(threads.map(source.read, asked)) == [FILES[path] for path in asked]


def test_a_folder_of_one_kind_of_archives_is_opened_as_that(tmp_path):
    write_zip(tmp_path)
    with open_source(tmp_path) as source:
        assert list(source.paths()) == IMAGES
    (tmp_path / ".other.zip").touch()
    (tmp_path / "notes.txt").touch()
    with open_source(tmp_path) as source:
        assert list(source.paths()) == IMAGES
    write_webdataset(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds photos.tar and photos.zip: which one?\n  fix: {tmp_path}/photos.tar"
    )
    (tmp_path / "photo.jpg").touch()
    with open_source(tmp_path) as source:
        assert list(source.paths()) == ["photo.jpg"]


def test_a_circle_of_links_ends(folder):
    (folder / "train" / "again").symlink_to(folder / "train", target_is_directory=True)
    (folder / "train" / "elsewhere").symlink_to(folder / "test" / "plaque", target_is_directory=True)
    with open_source(folder) as source:
        paths = list(source.paths())
    assert set(IMAGES) < set(paths)
    assert "train/elsewhere/päpel ünïcode.png" in paths
    assert len(paths) < 10


def test_a_dangling_link_is_listed_and_unreadable(folder):
    (folder / "train" / "papule" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    with open_source(folder) as source:
        assert "train/papule/gone.jpg" in list(source.paths())
        with pytest.raises(OSError, match="gone"):
            source.read("train/papule/gone.jpg")


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "train/../../evil.jpg", "train\\..\\evil.jpg"])
def test_a_zip_with_a_name_that_leaves_its_root_is_refused(tmp_path, name):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        zipped.writestr(info, b"x")
    with open_source(path) as source, pytest.raises(UserError, match="would leave its root; nothing was read"):
        list(source.paths())


def test_a_zip_with_backslashes_between_its_folders_says_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as zipped:
        info = zipfile.ZipInfo("placeholder")
        info.filename = "train\\a\\one.jpg"
        zipped.writestr(info, b"x")
    with open_source(tmp_path / "windows.zip") as source, pytest.raises(UserError) as raised:
        list(source.paths())
    assert "whose backslashes are no folders here; nothing was read\n  fix: unpack it and give" in str(raised.value)


def test_a_folder_reads_nothing_outside_itself(folder):
    with open_source(folder) as source, pytest.raises(UserError, match="only paths below it are read"):
        source.read("../photos.zip")


def test_a_damaged_zip_entry_is_an_os_error(archive):
    data = bytearray(archive.read_bytes())
    place = data.index(b"papule-1.jpg") + len(b"papule-1.jpg")
    data[place] ^= 0xFF
    archive.write_bytes(bytes(data))
    with open_source(archive) as source, pytest.raises(OSError, match="the zip entry cannot be read"):
        source.read("train/papule/papule-1.jpg")


def test_a_zip_bomb_is_refused_before_it_is_unpacked_and_costs_no_other_file(tmp_path):
    path, blank, noise = tmp_path / "photos.zip", io.BytesIO(), io.BytesIO()
    Image.new("RGB", (1500, 1500)).save(blank, "BMP")  # packs a thousandfold, and is small
    Image.effect_noise((32, 32), 50).save(noise, "PNG")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/papule/bomb.jpg", bytes(32 * 1024**2))
        file.writestr("train/papule/blank.bmp", blank.getvalue())
        file.writestr("train/papule/noise.png", noise.getvalue())
    rows = {row.path: row for row in index_images(path, n_workers=0)}
    refused = rows["train/papule/bomb.jpg"]
    assert refused.status == "refused"
    assert re.search(r"it unpacks \d\d,\d{3} bytes to 33,554,432, a zip bomb\? at most 100 times", refused.reason)
    assert [rows[f"train/papule/{name}"].status for name in ("blank.bmp", "noise.png")] == ["ok", "ok"]
    with ZipSource(path) as source, pytest.raises(OSError, match="a zip bomb"):
        source.read("train/papule/bomb.jpg")


def test_a_zip_that_states_too_little_is_read_no_further(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", bytes(8 * 1024**2))
    lying = path.read_bytes().replace((8 * 1024**2).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(lying)
    with ZipSource(path) as source, pytest.raises(OSError, match="the zip entry cannot be read"):
        source.read("a.jpg")


def test_a_damaged_deflate_stream_is_an_os_error(tmp_path):
    path = tmp_path / "deflated.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("train/a/a.jpg", bytes(range(256)) * 40)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    data[80] ^= 0xFF
    path.write_bytes(bytes(data))
    with open_source(path) as source, pytest.raises(OSError, match="the zip entry cannot be read"):
        source.read("train/a/a.jpg")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arbitrary_damage_of_a_zip_is_a_refused_entry_or_a_mistake(tmp_path, method):
    path, made = tmp_path / "photos.zip", random.Random(0)
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name in IMAGES:
            zipped.writestr(name, made.randbytes(300))
    assert outcomes_of_damage(path, made, 400) == {"read", "refused", "mistake"}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / "absent")
    assert str(caught.value) == (
        f"no such folder, .zip, .parquet or .tar file: {tmp_path}/absent\n"
        "  fix: check the path; a relative one starts at this folder, one on the Hub is hf://datasets/OWNER/NAME"
    )
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="as a zip file: File is not a zip file"):
        open_source(tmp_path / "text.zip")
    write_zip(tmp_path)
    whole = (tmp_path / "photos.zip").read_bytes()
    name = "päpel".encode()
    directory = whole.index(b"PK\x01\x02")
    newer = whole[: directory + 6] + b"\x63" + whole[directory + 7 :]
    for damaged, why in ((whole.replace(name, b"p\xff\xffpel"), "'utf-8' codec"), (newer, "zip file version 9.9")):
        (tmp_path / "text.zip").write_bytes(damaged)
        with pytest.raises(UserError, match=f"as a zip file: {why}.*\n  fix: unzip -t "):
            open_source(tmp_path / "text.zip")
    (tmp_path / "file.bin").write_text("x")
    with pytest.raises(UserError, match=r"it is neither a folder nor a \.zip, \.parquet or \.tar file$"):
        open_source(tmp_path / "file.bin")
    for name, command in (("file.tar.gz", "gunzip -k"), ("file.tar.xz", "unxz -k"), ("file.TAR.BZ2", "bunzip2 -k")):
        (tmp_path / name).write_text("x")
        with pytest.raises(UserError, match=rf"in place: it is compressed as a whole\n  fix: {command} "):
            open_source(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_named(folder):
    (folder / "train").chmod(0)
    with pytest.raises(UserError, match="cannot list"), open_source(folder) as source:
        list(source.paths())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("train/papule/a.jpg", ("train", "papule")),
        ("Test/papule/a.jpg", ("test", "papule")),
        ("dermnet/train/papule/deep/er/a.jpg", ("train", "papule")),
        ("val/x/a.jpg", ("validation", "x")),
        ("valid/x/a.jpg", ("validation", "x")),
        ("Validation/x/a.jpg", ("validation", "x")),
        ("papule/a.jpg", ("train", "papule")),
        ("a.jpg", ("train", "")),
        ("train/a.jpg", ("train", "")),
    ],
)
def test_split_and_label_follow_the_folders(path, expected):
    assert split_and_label(path) == expected


def test_image_paths_are_told_by_their_ending():
    assert is_image_path("a/b.JPEG")
    assert is_image_path("./a/b.jpg")
    assert not is_image_path("a.jpg/b")
    assert not is_image_path("jpg")
    assert not is_image_path("../a.jpg")
    assert not is_image_path("__MACOSX/a.jpg")
    assert not is_image_path("a/b.csv")
    assert not is_image_path("a/._b.jpg")
