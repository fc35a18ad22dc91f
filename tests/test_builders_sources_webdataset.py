"""WebDataset tar files: read in place by their headers, labels from their neighbours, nothing odd followed."""

import io
import json
import random
import tarfile

import pytest

from builders.errors import UserError
from builders.index import index_images, stale_paths
from builders.sources import open_source
from builders.sources.layout import split_and_label
from builders.sources.webdataset import expand_braces


def write(file, members, **options):
    """A tar of `members`: (name, bytes), or a TarInfo for what is no plain file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def odd(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def contents(images):
    with open_source(images) as source:
        return {path: source.read(path) for path in source.paths()}


def test_labels_stand_beside_the_images(tmp_path):
    members = [
        ("0001.jpg", b"1"),
        ("0001.cls", b" papule\n"),
        ("0002.cls", b"7"),
        ("0002.png", b"2"),
        ("0003.json", json.dumps({"label": "a/b", "age": 60}).encode()),
        ("0003.jpeg", b"3"),
        ("0004.jpg", b"4"),
        ("0004.json", b'{"cls": 3}'),
        ("0004.cls", b"first"),
        ("0005.jpg", b"5"),
        ("0005.json", b'["no label"]'),
        ("0006.txt", b"no image"),
        ("stats.json", b"{damaged, but of no image"),
    ]
    write(tmp_path / "test-000000.tar", members)
    assert contents(tmp_path / "test-000000.tar") == {
        "test/papule/0001.jpg": b"1",
        "test/7/0002.png": b"2",
        "test/a%2Fb/0003.jpeg": b"3",
        "test/first/0004.jpg": b"4",
        "test/0005.jpg": b"5",
    }


def test_what_stands_beside_a_labelled_image_is_no_photograph(tmp_path):
    members = [("a.jpg", b"1"), ("a.seg.png", b"mask"), ("a.cls", b"x"), ("b.v2.jpg", b"2"), ("b.jpg", b"3")]
    write(tmp_path / "t.tar", members)
    assert contents(tmp_path / "t.tar") == {"train/x/a.jpg": b"1", "train/b.v2.jpg": b"2", "train/b.jpg": b"3"}


@pytest.mark.parametrize(
    ("tar", "member", "expected"),
    [
        ("photos.tar", "train/papule/a.jpg", "train/papule/a.jpg"),
        ("photos.tar", "./dermnet/Test/papule/deep/a.jpg", "dermnet/Test/papule/deep/a.jpg"),
        ("photos.tar", "papule/a.jpg", "train/papule/a.jpg"),
        ("valid_00.tar", "set/papule/a.jpg", "validation/papule/a.jpg"),
        ("valid_00.tar", "a.jpg", "validation/a.jpg"),
        ("test/00.tar", "a.jpg", "test/a.jpg"),
    ],
)
def test_folders_inside_tell_what_the_name_of_the_tar_does_not(tmp_path, tar, member, expected):
    write(tmp_path / "set" / tar, [(member, b"1")])
    assert contents(tmp_path / "set") == {expected: b"1"}
    split, label = split_and_label(expected)
    assert label == ("papule" if "papule" in member else "")
    assert split == expected.lower().removeprefix("dermnet/").split("/")[0]


def test_many_tars_are_one_source_by_folder_or_braces(tmp_path):
    for number in range(3):
        write(tmp_path / f"train-{number:04}.tar", [("a.jpg", bytes([number])), ("a.cls", b"x")])
    write(tmp_path / "test-0000.tar", [("a.jpg", b"t"), ("a.cls", b"x")])
    train = {
        "train/x/a.jpg": b"\0",
        "train/x/a~train-0001-000000.jpg": b"\1",
        "train/x/a~train-0002-000000.jpg": b"\2",
    }
    assert contents(tmp_path / "train-{0000..0002}.tar") == train
    assert contents(tmp_path) == train | {"test/x/a.jpg": b"t"}
    with pytest.raises(UserError, match=r"no such tar file: .*train-0003.tar \(2 of 5 are missing\)"):
        open_source(tmp_path / "train-{0000..0004}.tar")


def test_braces_are_expanded_as_a_shell_does():
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{train,test}-{0..1}.tar") == ["train-0.tar", "train-1.tar", "test-0.tar", "test-1.tar"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    with pytest.raises(UserError, match="stands for more than 100,000 names"):
        expand_braces("{0..99999999999}.tar")


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_survive_every_layout_of_tars(tmp_path, layout):
    long = "train/" + "x" * (90 if layout == tarfile.USTAR_FORMAT else 300) + "/a.jpg"
    write(tmp_path / "t.tar", [(long, b"1"), ("train/päp/ünïcode שלום.jpg", b"2")], format=layout)
    assert contents(tmp_path / "t.tar") == {long: b"1", "train/päp/ünïcode שלום.jpg": b"2"}


def test_of_entries_with_the_same_name_the_last_counts(tmp_path):
    write(tmp_path / "t.tar", [("a.jpg", b"old"), ("a.cls", b"x"), ("b.jpg", b"b"), ("./a.jpg", b"new")])
    assert contents(tmp_path / "t.tar") == {"train/b.jpg": b"b", "train/x/a.jpg": b"new"}


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "train/../../evil.jpg", "train\\..\\evil.jpg"])
def test_a_name_that_leaves_its_root_is_refused(tmp_path, name):
    write(tmp_path / "evil.tar", [("a.jpg", b"1"), (name, b"x")])
    with pytest.raises(UserError, match="would leave its root; nothing was read"):
        contents(tmp_path / "evil.tar")


def test_links_sparse_files_and_devices_are_refused_one_by_one(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    members = [
        ("train/x/good.jpg", b"1"),
        odd("train/x/hard.jpg", tarfile.LNKTYPE, "train/x/good.jpg"),
        odd("train/x/soft.jpg", tarfile.SYMTYPE, str(tmp_path / "secret.jpg")),
        odd("train/x/pipe.jpg", tarfile.FIFOTYPE),
        odd("train/x/sparse.jpg", tarfile.GNUTYPE_SPARSE),
        odd("train/folder.jpg", tarfile.DIRTYPE),
    ]
    file = write(tmp_path / "t.tar", members, format=tarfile.GNU_FORMAT)
    reasons = {row.path: row.reason for row in index_images(file, n_workers=0)}
    assert reasons == {
        "train/x/good.jpg": "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF",
        "train/x/hard.jpg": "cannot be read: a link in a tar is not followed",
        "train/x/pipe.jpg": "cannot be read: a device or pipe in a tar is not read",
        "train/x/soft.jpg": "cannot be read: a link in a tar is not followed",
        "train/x/sparse.jpg": "cannot be read: a sparse file in a tar is not read",
    }


def test_a_giant_is_refused_before_it_is_read(tmp_path):
    entry = tarfile.TarInfo("train/x/vast.jpg")
    entry.size = 600 * 1024**2
    with (tmp_path / "t.tar").open("wb") as file:
        file.write(entry.tobuf())
        file.truncate(512 + entry.size + 1024)
    with open_source(tmp_path / "t.tar") as source:
        assert source.size("train/x/vast.jpg") == entry.size
        with pytest.raises(OSError, match=r"^it holds 629,145,600 bytes; at most 536,870,912 are read$"):
            source.read("train/x/vast.jpg")


def test_a_header_that_would_fill_the_memory_is_a_mistake(tmp_path):
    entry = odd("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    entry.size = 2 * 1024**3
    (tmp_path / "t.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(UserError, match=r"as a tar file: a header claims 2,147,483,648 bytes"):
        contents(tmp_path / "t.tar")


def test_damage_is_never_taken_for_the_end(tmp_path):
    whole = write(tmp_path / "t.tar", [(f"{n}.jpg", bytes([n]) * 700) for n in range(4)]).read_bytes()
    cases = {
        "ends within the entry '2.jpg'": whole[: 2 * 1536 + 600],
        "entries end at byte 3,072 of 4,000": whole[: 2 * 1536] + b"x" * 928,
        "entries end at byte 1,536": whole[:1536] + b"\xff" + whole[1537:],
        "more behind it": whole + whole,
        "as a tar file: ": b"no tar at all" * 100,
        "empty file": b"",
    }
    for message, content in cases.items():
        (tmp_path / "t.tar").write_bytes(content)
        with pytest.raises(UserError, match=message):
            contents(tmp_path / "t.tar")
    (tmp_path / "t.tar").write_bytes(whole[: 4 * 1536])  # without its end marker, as some writers leave it
    assert len(contents(tmp_path / "t.tar")) == 4


def test_an_entry_of_a_length_below_0_ends(tmp_path):
    entry = tarfile.TarInfo("a.jpg")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")  # base 256, two's complement
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    (tmp_path / "t.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UserError, match="as a tar file: "):
        contents(tmp_path / "t.tar")


@pytest.mark.parametrize("label", [b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_damaged_label_is_named(tmp_path, label):
    write(tmp_path / "t.tar", [("a.jpg", b"1"), ("a.json", label)])
    with pytest.raises(UserError, match=r"t.tar holds the damaged label 'a.json': "):
        contents(tmp_path / "t.tar")


def test_a_vast_label_and_a_linked_one_are_named(tmp_path):
    write(tmp_path / "t.tar", [("a.jpg", b"1"), ("a.cls", b"x" * 2_000_000)])
    with pytest.raises(UserError, match=r"holds the label 'a.cls' of 2,000,000 bytes; too long"):
        contents(tmp_path / "t.tar")
    write(tmp_path / "t.tar", [("a.jpg", b"1"), odd("a.cls", tarfile.SYMTYPE, "/etc/hostname")])
    with pytest.raises(UserError, match=r"holds the label 'a.cls' of 0 bytes; a link in a tar is not followed"):
        contents(tmp_path / "t.tar")


def test_an_index_of_a_tar_is_an_index_of_files(tmp_path, photographs):
    rows = index_images(photographs, n_workers=0)
    file = write(tmp_path / "t.tar", [(row.path, (photographs / row.path).read_bytes()) for row in rows])
    assert index_images(file, n_workers=2) == rows
    later = file.stat().st_mtime_ns + 1
    with open_source(file) as source:
        paths = list(source.paths())
        assert stale_paths(source, paths, rows, later) == []
        assert stale_paths(source, paths, rows[1:], later) == paths[:1]
        assert stale_paths(source, paths, rows, later - 2) == paths


def test_arbitrary_damage_is_another_image_or_a_mistake(tmp_path):
    members = [(f"{n}.jpg", bytes([n]) * 30) for n in range(6)] + [(f"{n}.cls", b"x") for n in range(6)]
    whole = write(tmp_path / "t.tar", members, format=tarfile.PAX_FORMAT).read_bytes()
    made = random.Random(5)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(made.randrange(1, 6)):
            damaged[made.randrange(len(damaged))] = made.randrange(256)
        (tmp_path / "t.tar").write_bytes(bytes(damaged))
        try:
            contents(tmp_path / "t.tar")
            outcomes.add("read")
        except UserError:
            outcomes.add("mistake")
        except OSError:
            outcomes.add("refused")
    assert {"read", "mistake"} <= outcomes
