import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.features import arrow_schema, dataset_features, features_of
from builders.files import sha256_of
from builders.shards import _flushed, check_same_schema, write_shards

pytestmark = pytest.mark.usefixtures("private_cache")
LABELS = ["papule", "plaque"]


def shard_row(number: int, image_bytes: bytes | None = None) -> dict[str, object]:
    row = {
        "image_id": f"{number:016x}",
        "image_sha256": f"{number:064x}",
        "path": f"train/plaque/{number} ü.jpg",
        "label": number % 3 if number % 3 < 2 else None,
        "description": f'Row {number}: a plaque,\n"quoted" | שלום 🩺' + "." * number,
        "finish_reason": "stop",
        "temperature": 0.0,
        "n_image_tokens": 256,
        "n_prompt_tokens": 300 + number,
        "n_output_tokens": number,
        "n_tiles": 1,
        "flags": ["truncated", "empty"][: number % 3],
        "duplicate_group": "",
        "split_official": "train",
        "split_clean": "excluded",
        "in_balanced_subset": number % 2 == 0,
    }
    return row if image_bytes is None else {"image": {"bytes": image_bytes, "path": row["path"]}, **row}


def written(*arguments, **options):
    shards = write_shards(*arguments, **options)
    assert shards == {shard: sha256_of(shard) for shard in shards}
    return list(shards)


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("with_findings", [False, True])
@pytest.mark.parametrize("with_review", [False, True])
def test_the_schema_is_that_of_datasets(with_images, with_findings, with_review):
    features = dataset_features(["ä", 'a "b"'], with_images, with_findings, with_review)
    theirs = datasets.Features.from_dict(features)
    assert theirs.to_dict() == features
    assert arrow_schema(features).equals(theirs.arrow_schema, check_metadata=True)
    assert datasets.Features.from_arrow_schema(arrow_schema(features)) == theirs
    assert features_of(theirs.arrow_schema) == features


@pytest.mark.parametrize("metadata", [None, {"huggingface": "{"}, {"huggingface": "{}"}, {"huggingface": "[]"}])
def test_a_shard_without_features_is_an_error(metadata):
    schema = pa.schema([("label", pa.int64())], metadata)
    with pytest.raises(UserError, match="does not carry the features of `datasets`"):
        features_of(schema)


@pytest.mark.parametrize("with_images", [False, True])
def test_load_dataset_returns_what_was_written(tmp_path, with_images):
    rows = [shard_row(number, bytes([number]) * 3_000 if with_images else None) for number in range(230)]
    features = dataset_features(LABELS, with_images)
    shards = written(tmp_path, "train", rows, features, shard_bytes=200_000)
    loaded = datasets.load_dataset("parquet", data_files=[str(shard) for shard in shards])["train"]
    assert loaded.features == datasets.Features.from_dict(features)
    if with_images:
        loaded = loaded.cast_column("image", datasets.Image(decode=False))
    assert loaded.to_list() == rows


def test_shards_are_cut_by_size_and_named_with_their_number(tmp_path):
    rows = (shard_row(number, bytes(10_000)) for number in range(25))
    shards = written(tmp_path, "test", rows, dataset_features(LABELS, True), shard_bytes=110_000)
    assert [shard.name for shard in shards] == [f"test-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [10, 10, 5]
    assert sorted(tmp_path.iterdir()) == shards  # nothing unfinished stays


def test_one_row_above_the_limit_is_a_shard_of_its_own(tmp_path):
    rows = (shard_row(number, bytes(10_000)) for number in range(2))
    shards = written(tmp_path, "test", rows, dataset_features(LABELS, True), shard_bytes=1)
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [1, 1]


def test_no_rows_make_no_file(tmp_path):
    assert written(tmp_path, "test", [], dataset_features(LABELS, False), shard_bytes=100) == []
    assert list(tmp_path.iterdir()) == []


def test_row_groups_stay_small_where_there_are_images(tmp_path):
    small = written(
        tmp_path, "train", (shard_row(i, b"x") for i in range(250)), dataset_features(LABELS, True), shard_bytes=10**9
    )
    footer = pq.read_metadata(small[0])
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [100, 100, 50]
    large = written(
        tmp_path, "test", (shard_row(i, bytes(9 * 2**20)) for i in range(9)), dataset_features(LABELS, True), 10**9
    )
    footer = pq.read_metadata(large[0])
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [7, 2]  # 64 MiB at most


def test_pages_are_plain_indexed_and_checksummed(tmp_path):
    rows = [shard_row(number, bytes([number]) * 5_000) for number in range(40)]
    shard = written(tmp_path, "train", rows, dataset_features(LABELS, True), shard_bytes=10**9)[0]
    group = pq.read_metadata(shard).row_group(0)
    images = group.column(0)
    assert images.path_in_schema == "image.bytes"
    assert images.compression == "UNCOMPRESSED"
    assert "PLAIN" in images.encodings
    assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(images.encodings)
    assert all(group.column(i).has_offset_index for i in range(group.num_columns))
    assert [order.column_index for order in group.sorting_columns] == [2]  # image_id, after the two leaves of image
    content = bytearray(shard.read_bytes())
    content[content.index(bytes([7]) * 100) + 50] ^= 1
    shard.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(shard, page_checksum_verification=True)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        rows = [shard_row(number, bytes([number]) * 5_000) for number in range(150)]
        written(tmp_path / name, "train", iter(rows), dataset_features(LABELS, True), shard_bytes=300_000)
    first, second = ([path.read_bytes() for path in sorted((tmp_path / n).iterdir())] for n in ("first", "second"))
    assert len(first) == 3
    assert first == second


def test_shards_with_another_class_order_are_refused(tmp_path):
    one = written(tmp_path, "train", [shard_row(0)], dataset_features(LABELS, False), 10**9)
    other = written(tmp_path, "test", [shard_row(1)], dataset_features(LABELS[::-1], False), 10**9)
    check_same_schema(one)
    with pytest.raises(UserError) as error:
        check_same_schema(one + other)
    assert str(error.value) == (
        f"{other[0]} and train-00000-of-00001.parquet disagree on columns or class names; labels would be mixed up\n"
        "  fix: build the dataset again: `vl-dermnet build`"
    )


def test_a_truncated_shard_is_named(tmp_path):
    shard = written(tmp_path, "train", [shard_row(0)], dataset_features(LABELS, False), 10**9)[0]
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"cannot read the shard {shard}: "):
        check_same_schema([shard])


def test_a_disk_that_fails_while_more_is_gathered_is_told(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builders.shards.os.fsync", fail)
    with (
        (tmp_path / "file").open("wb") as file,
        pytest.raises(OSError, match="Input/output error"),
        _flushed(file) as flush,
    ):
        flush()
