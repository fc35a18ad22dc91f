"""Parquet sources: rows become paths, bytes come back in any order, and no table can hurt."""

import json
import random
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.index import index_images, stale_paths
from builders.schema import image_id_of
from builders.sources import open_source
from builders.sources.layout import split_and_label
from builders.sources.parquet_footer import column_chunks
from builders.sources.parquet_values import ParquetValues, Place
from tests.damaged_bytes import outcomes_of_damage

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image(data, path=None):
    return {"bytes": data, "path": path}


def features(**kinds):
    return {"huggingface": json.dumps({"info": {"features": kinds}})}


def write(file, images, *, labels=None, kind=IMAGE, metadata=None, **options):
    columns = {"image": pa.array(images, kind)} | ({} if labels is None else {"label": labels})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file, **options)
    return file


def noise(n_images, n_bytes=3000):
    made = random.Random(0)
    return [made.randbytes(made.randrange(1, n_bytes)) for _ in range(n_images)]


def test_what_datasets_writes_is_read_with_its_class_names(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names = ["plaque", "Acne and Rosacea Photos"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = [{"image": image(bytes([n]), f"{n}.jpg"), "label": n % 2} for n in range(4)]
    rows.append({"image": image(b"x", "x.jpg"), "label": None})
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    with open_source(tmp_path / "data") as source:
        assert {path: source.read(path) for path in source.paths()} == {
            "test/Acne and Rosacea Photos/1.jpg": b"\x01",
            "test/Acne and Rosacea Photos/3.jpg": b"\x03",
            "test/plaque/0.jpg": b"\x00",
            "test/plaque/2.jpg": b"\x02",
            "test/x.jpg": b"x",
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test-00000-of-00002-abc.parquet", "test"),
        ("data/valid.parquet", "validation"),
        ("default/validation/0000.parquet", "validation"),
        ("dermnet_dev.parquet", "validation"),
        ("0000.parquet", "train"),
    ],
)
def test_the_split_stands_in_the_name_of_the_file(tmp_path, name, expected):
    write(tmp_path / "set" / name, [image(b"1", "a.jpg")], labels=["test"])
    with open_source(tmp_path / "set") as source:
        (path,) = source.paths()
    assert path == f"{expected}/test/a.jpg"
    assert split_and_label(path) == (expected, "test")


def test_folders_in_which_files_differ_come_first(tmp_path):
    for config in ("large", "small"):
        write(tmp_path / "a" / config / "train-0.parquet", [image(b"1", "a.jpg")], labels=["x"])
    pq.write_table(pa.table({"text": ["t"]}), tmp_path / "a" / "texts.parquet")
    with open_source(tmp_path) as source:
        assert list(source.paths()) == ["large/train/x/a.jpg", "small/train/x/a.jpg"]


def test_rows_without_a_name_or_with_the_same_are_told_apart_by_shard_and_row(tmp_path):
    write(tmp_path / "train-0.parquet", [image(b"1"), image(b"2", "a.jpg"), image(b"3", "in/a.jpg")], row_group_size=1)
    write(tmp_path / "train-1.parquet", [image(b"4", "a.jpg"), image(b"5", "no ending"), image(b"6", "")])
    with open_source(tmp_path) as source:
        assert {path: source.read(path) for path in source.paths()} == {
            "train/train-0-000000.jpg": b"1",
            "train/a.jpg": b"2",
            "train/a~train-0-000002.jpg": b"3",
            "train/a~train-1-000000.jpg": b"4",
            "train/no ending.jpg": b"5",
            "train/train-1-000002.jpg": b"6",
        }


def test_names_and_labels_cannot_leave_their_place(tmp_path):
    labels = ["../..", "a/b", "a%2Fb", "..", ".hidden", "C:\\x\n", "50%", "", '<b>"שלום']
    images = [image(str(n).encode(), name) for n, name in enumerate(["../../e.jpg", "/etc/e.jpg", "..", "e\0.jpg"])]
    images += [image(str(n).encode(), "e.jpg") for n in range(4, 9)]
    write(tmp_path / "t.parquet", images, labels=labels)
    with open_source(tmp_path) as source:
        by_row = {source.read(path): path for path in source.paths()}
    assert [by_row[str(n).encode()] for n in range(9)] == [
        "train/%2E.%2F../e.jpg",
        "train/a%2Fb/e.jpg",
        "train/a%252Fb/%2E..jpg",
        "train/%2E./e%00.jpg",
        "train/%2Ehidden/e.jpg",
        "train/C:%5Cx%0A/e.jpg",
        "train/50%/e.jpg",
        "train/e.jpg",
        'train/<b>"שלום/e.jpg',
    ]


def test_names_that_are_no_utf8_are_refused_one_by_one(tmp_path):
    names = pa.array([b"ok.jpg", b"bad-\xff.jpg"], pa.binary()).view(pa.string())
    struct = pa.StructArray.from_arrays([pa.array([b"1", b"2"]), names], ["bytes", "path"])
    pq.write_table(pa.table({"image": struct}), tmp_path / "t.parquet")
    reasons = {row.path: row.reason for row in index_images(tmp_path / "t.parquet", n_workers=0)}
    assert list(reasons) == ["train/bad-\\xff.jpg", "train/ok.jpg"]


def test_a_plain_binary_column_and_a_feature_of_another_name_are_images_too(tmp_path):
    pq.write_table(pa.table({"bytes": [b"1", b"2"], "label": ["x", "y"]}), tmp_path / "a.parquet")
    with open_source(tmp_path / "a.parquet") as source:
        assert {path: source.read(path) for path in source.paths()} == {
            "train/x/a-000000.jpg": b"1",
            "train/y/a-000001.jpg": b"2",
        }
    table = pa.table({"photo": pa.array([image(b"1", "p.png")], IMAGE), "kind": [1]})
    kinds = features(photo={"_type": "Image"}, kind={"_type": "ClassLabel", "names": ["x", "y"]})
    pq.write_table(table.replace_schema_metadata(kinds), tmp_path / "b.parquet")
    with open_source(tmp_path / "b.parquet") as source:
        assert list(source.paths()) == ["train/y/p.png"]


def test_shards_whose_classes_stand_in_another_order_keep_their_meaning(tmp_path):
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        kinds = features(image={"_type": "Image"}, label={"_type": "ClassLabel", "names": names})
        write(tmp_path / f"train-{number}.parquet", [image(b"1", f"{number}.jpg")], labels=[0], metadata=kinds)
    with open_source(tmp_path) as source:
        assert list(source.paths()) == ["train/a/0.jpg", "train/b/1.jpg"]


LAYOUTS = {
    "plain": {"compression": "none", "use_dictionary": False},
    "plain, small groups and pages": {
        "compression": "none",
        "use_dictionary": False,
        "row_group_size": 7,
        "use_content_defined_chunking": True,
    },
    "second version of pages": {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
    "dictionary": {"compression": "none"},
    "snappy": {},
    "zstd, small groups": {"compression": "zstd", "row_group_size": 7},
    "delta": {"compression": "none", "use_dictionary": False, "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"}},
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_bytes_come_back_in_any_order(tmp_path, layout):
    wanted = [*noise(60), b"", None, b"\0" * 500, b"same", b"same", *noise(3)]
    images = [image(data, f"{number:03}.jpg") for number, data in enumerate(wanted)]
    write(tmp_path / "t.parquet", [*images, None], **LAYOUTS[layout])
    order = list(range(len(wanted)))
    random.Random(1).shuffle(order)
    with open_source(tmp_path / "t.parquet") as source:
        assert len(list(source.paths())) == len(wanted) + 1
        for number in order:
            path = f"train/{number:03}.jpg"
            if wanted[number] is None:
                with pytest.raises(OSError, match=r"^row \d+ of row group \d in t.parquet holds no image bytes$"):
                    source.read(path)
            else:
                assert source.size(path) == len(wanted[number])
                assert source.read(path) == wanted[number]
        with pytest.raises(OSError, match="holds no image bytes"):
            source.size(f"train/t-{len(wanted):06}.jpg")


def test_only_the_latest_copies_of_compressed_row_groups_are_kept(tmp_path):
    wanted = noise(300, n_bytes=50)
    write(tmp_path / "t.parquet", [image(data) for data in wanted], row_group_size=3)
    file = tmp_path / "t.parquet"
    chunks = column_chunks(file, "image.bytes")
    places = [Place(file, "image.bytes", number // 3, number % 3, chunks[number // 3]) for number in range(300)]
    values = ParquetValues()
    for number in [*range(300), *range(300)]:
        assert values.read(places[number]) == wanted[number]
    assert len(values._spills) == 64
    values.close()
    assert values.size(places[1]) == len(wanted[1])


def test_a_full_disk_is_not_the_fault_of_an_image(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", [image(b"1" * 100_000)])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with open_source(tmp_path) as source, pytest.raises(UserError, match="set TMPDIR to a folder with more of it"):
        source.read("train/t-000000.jpg")


def test_an_index_of_rows_is_an_index_of_files(tmp_path, photographs):
    rows = index_images(photographs, n_workers=0)
    for split in ("train", "test"):
        chosen = [row for row in rows if row.split == split]
        images = [image((photographs / row.path).read_bytes(), row.path) for row in chosen]
        write(tmp_path / "tables" / f"{split}-0.parquet", images, labels=[row.label for row in chosen])
    assert index_images(tmp_path / "tables", n_workers=2) == rows


def test_only_what_changed_is_stale(tmp_path):
    file = write(tmp_path / "t.parquet", [image(b"not an image", "a.jpg"), image(b"2", "b.jpg")])
    rows = index_images(file, n_workers=0)
    later = file.stat().st_mtime_ns + 1
    with open_source(file) as source:
        paths = list(source.paths())
        assert stale_paths(source, paths, rows, later) == []
        assert stale_paths(source, paths, rows[1:], later) == ["train/a.jpg"]
        assert stale_paths(source, paths, rows, later - 2) == paths
        assert stale_paths(source, paths, rows, later, suspects={image_id_of("train/b.jpg")}) == ["train/b.jpg"]


@pytest.mark.parametrize("options", [{"compression": "none", "use_dictionary": False}, {}])
def test_one_flipped_byte_costs_its_page_and_is_named(tmp_path, options):
    images = [image(data, f"{number}.jpg") for number, data in enumerate(noise(4))]
    options |= {"row_group_size": 2, "write_page_checksum": True, "write_statistics": False}
    file = write(tmp_path / "t.parquet", images, **options)
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(images[3]["bytes"][:30]) + 5] ^= 0xFF
    file.write_bytes(bytes(damaged))
    with open_source(file) as source:
        assert source.read("train/1.jpg") == images[1]["bytes"]
        with pytest.raises(OSError, match=r"^row group 1 of t.parquet is damaged: .*CRC"):
            source.read("train/3.jpg")


def test_damaged_files_are_named(tmp_path):
    whole = write(tmp_path / "t.parquet", [image(b"1" * 5000)]).read_bytes()
    for part in (b"", b"PAR1", b"no table", whole[: len(whole) // 2], whole[:-30] + b"\xff" * 22 + whole[-8:]):
        (tmp_path / "t.parquet").write_bytes(part)
        with pytest.raises(UserError, match=r"^cannot open .*t.parquet as a Parquet file: "):
            open_source(tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["photo.raw", "label"], "has its images or labels in 'photo.raw', and a column's name must have no dot"),
        (["image", "dx.label"], "has its images or labels in 'dx.label', and a column's name must have no dot"),
        (["image", "label", "label"], "has 2 columns called 'label': which one?"),
        (["image", "label", "image"], "has 2 columns called 'image': which one?"),
    ],
)
def test_columns_that_cannot_be_told_by_their_names_are_named(tmp_path, names, told):
    kinds = features(**{names[0]: {"_type": "Image"}, names[1]: {"_type": "ClassLabel", "names": ["a"]}})
    columns = [pa.array([b"1"]), pa.array([0]), pa.array([b"2"])][: len(names)]
    table = pa.Table.from_arrays(columns, names=names).replace_schema_metadata(kinds)
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/t.parquet {told}") + "\n  fix: rename"):
        open_source(tmp_path / "t.parquet")


def test_a_table_without_images_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "image": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / "t.parquet")
    assert str(caught.value) == (
        f"no column of images in {tmp_path}/t.parquet: t.parquet has text, image\n"
        "  fix: name the image files' bytes `image`, as Dataset.to_parquet does with an Image() feature"
    )


@pytest.mark.parametrize("written", ["{", "[]", '{"info": 3}', '{"info": {"features": []}}', "[" * 100_000])
def test_damaged_features_are_named(tmp_path, written):
    write(tmp_path / "t.parquet", [image(b"1")], metadata={"huggingface": written})
    with pytest.raises(UserError, match=r"the features in the metadata of .*t.parquet are damaged"):
        open_source(tmp_path)


def test_a_label_without_a_name_is_named(tmp_path):
    kinds = features(label={"_type": "ClassLabel", "names": ["a", "b"]})
    write(tmp_path / "t.parquet", [image(b"1")], labels=[2], metadata=kinds)
    with (
        open_source(tmp_path) as source,
        pytest.raises(UserError, match=r"holds the label number 2 and names for 2 classes only"),
    ):
        list(source.paths())


def test_an_external_path_in_a_row_is_never_opened(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    write(tmp_path / "t" / "t.parquet", [image(None, str(tmp_path / "secret.jpg"))])
    with open_source(tmp_path / "t") as source:
        with pytest.raises(OSError, match="holds no image bytes"):
            source.read("train/secret.jpg")
        with pytest.raises(FileNotFoundError):
            source.read("../secret.jpg")


def test_tables_that_cannot_be_true_are_named(tmp_path):
    rows = pa.table({"image": [b"1"], "label": ["x"]})
    pq.write_table(rows.take([0] * 100_000), tmp_path / "many.parquet")
    with pytest.raises(UserError, match=r"claims 100,000 rows in .* bytes, a decompression bomb\?"):
        open_source(tmp_path / "many.parquet")
    long = pa.table({"image": [b"1"], "label": ["x" * 5_000_000]})
    pq.write_table(long.take([0] * 50), tmp_path / "long.parquet")
    with open_source(tmp_path / "long.parquet") as source, pytest.raises(UserError, match="name of 5,000,000 bytes"):
        list(source.paths())


@pytest.mark.slow  # writes half a gigabyte
def test_bombs_and_giants_are_refused(tmp_path):
    vast = pa.array([b"\0" * (513 * 1024**2), b"1"], pa.large_binary())
    pq.write_table(pa.table({"image": vast}), tmp_path / "bomb.parquet", compression="zstd")
    pq.write_table(pa.table({"image": vast}), tmp_path / "giant.parquet", compression="none", use_dictionary=False)
    del vast
    tracemalloc.start()
    with open_source(tmp_path / "bomb.parquet") as source, pytest.raises(OSError, match="a decompression bomb"):
        source.read("train/bomb-000000.jpg")
    with open_source(tmp_path / "giant.parquet") as source:
        with pytest.raises(OSError, match=r"^it holds 537,919,488 bytes; at most 536,870,912 are read$"):
            source.read("train/giant-000000.jpg")
        assert source.read("train/giant-000001.jpg") == b"1"
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_arbitrary_damage_is_a_refused_row_or_a_mistake(tmp_path):
    images = [image(data, f"{number}.jpg") for number, data in enumerate(noise(6, n_bytes=300))]
    kinds = features(label={"_type": "ClassLabel", "names": ["a", "b"]})
    file = write(tmp_path / "t.parquet", images, labels=[0, 1] * 3, metadata=kinds, row_group_size=3)
    assert outcomes_of_damage(file, random.Random(3), 300) == {"read", "refused", "mistake"}
