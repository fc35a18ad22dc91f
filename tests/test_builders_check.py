import random
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.check import check_dataset
from builders.check.files import check_files
from builders.dataset_folder import write_checksums
from builders.errors import UserError
from builders.sources.parquet_footer import row_groups
from dataset_card.check_card import check_card
from tests.damage import (
    change_json,
    change_rows,
    change_shard,
    change_text,
    faults,
    found,
    shards_of,
    write_odd_integers,
)

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("shard_bytes", [2_000, 10**9])
def test_what_build_writes_is_sound(make_two_sets, photographs, with_images, shard_bytes):
    folder = make_two_sets(with_images, shard_bytes, with_card=True)
    report = check_dataset(folder, photographs, check_card)
    assert report.faults == []
    assert report.not_checked == []
    assert (report.n_sets, report.n_rows) == (2, 52)


def test_a_folder_of_something_else_is_no_dataset(tmp_path):
    with pytest.raises(UserError) as error:
        check_dataset(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a dataset folder: it holds no provenance/\n"
        "  fix: name the folder that `vl-dermnet build … --out` or a download made"
    )


@pytest.mark.parametrize("with_images", [False, True])
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(make_two_sets, with_images):
    folder, draw = make_two_sets(with_images, with_card=True), random.Random(0)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(5))}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << draw.randrange(8)
            file.write_bytes(damaged)
            named = {each.file for each in check_files(folder)}
            # in the list of checksums itself it looks like a change of the file that the line is about
            assert named if file.name == "SHA256SUMS" else file.relative_to(folder).as_posix() in named, (file, place)
        file.write_bytes(whole)
    assert list(check_files(folder)) == []


@pytest.mark.parametrize("with_images", [False, True])
def test_a_flipped_bit_in_a_page_is_found_by_the_pages_own_checksum_too(make_two_sets, with_images):
    folder = make_two_sets(with_images)
    shard = shards_of(folder)[0]
    damaged = bytearray(shard.read_bytes())
    column = pq.read_metadata(shard).row_group(0).column(0)
    damaged[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    shard.write_bytes(damaged)
    write_checksums(folder)
    assert found(folder, "rows", shard.name, "row group 0", "CRC")


def test_no_damage_of_a_footer_ends_the_check(make_two_sets):
    folder, draw = make_two_sets(), random.Random(1)
    shard = shards_of(folder)[0]
    whole = shard.read_bytes()
    footer_bytes = int.from_bytes(whole[-8:-4], "little")
    for _ in range(30):
        damaged = bytearray(whole)
        damaged[len(whole) - 8 - draw.randrange(footer_bytes)] ^= 1 << draw.randrange(8)
        shard.write_bytes(damaged)
        assert shard.relative_to(folder).as_posix() in {each.file for each in faults(folder)}


def test_a_footer_that_ends_the_process_when_pyarrow_is_asked_for_its_columns_is_a_fault(make_two_sets):
    folder = make_two_sets()
    shard = shards_of(folder)[0]
    # a histogram of two numbers, 0 and the rows, becomes one of one number, written in a byte more
    histogram = re.compile(rb"\x19\x06\x19\x26\x00(.)", re.DOTALL)
    damaged, n = histogram.subn(lambda two: b"\x19\x06\x19\x16" + bytes([two[1][0] | 128, 0]), shard.read_bytes(), 1)
    assert n == 1
    shard.write_bytes(damaged)
    write_checksums(folder)
    assert found(folder, "rows", shard.name, "row group 0", "histogram size mismatch")


def test_a_type_that_arrow_does_not_know_is_a_fault(make_two_sets):
    folder = make_two_sets()
    write_odd_integers(shards_of(folder)[1])
    write_checksums(folder)
    assert found(folder, "shards", shards_of(folder)[1].name, "footer", "Integers not in cstdint")


def test_a_footer_is_read_as_pyarrow_reads_it(make_two_sets):
    for shard in shards_of(make_two_sets(with_images=True)):
        footer = pq.read_metadata(shard)
        for number, group in enumerate(row_groups(shard)):
            theirs = footer.row_group(number)
            columns = [theirs.column(each) for each in range(theirs.num_columns)]
            assert (group.n_rows, group.n_bytes) == (theirs.num_rows, theirs.total_byte_size)
            assert group.sorted_by == [columns[each.column_index].path_in_schema for each in theirs.sorting_columns]
            assert [(each.path, each.codec, each.encodings, each.has_page_index) for each in group.columns] == [
                (each.path_in_schema, each.compression, set(each.encodings), each.has_offset_index) for each in columns
            ]
        assert number + 1 == footer.num_row_groups


def test_a_truncated_shard_is_named(make_two_sets):
    folder = make_two_sets()
    shard = shards_of(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    write_checksums(folder)
    assert [each.file for each in found(folder, "shards", "footer", "cannot be read")] == [f"tiny-doctor/{shard.name}"]


def test_missing_and_extra_files_are_named(make_two_sets):
    folder = make_two_sets()
    shards_of(folder)[0].unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / ".gitattributes").write_text("the Hub's")
    listed = {(each.file, each.seen) for each in check_files(folder)}
    assert listed == {
        ("tiny-doctor/train-00000-of-00002.parquet", "no such file"),
        ("notes.txt", "a file that the checksums do not list"),
    }
    assert found(folder, "shards", "tiny-doctor/train-*", "00001-of-00002", "00000 to 00001, each once")


def test_every_fault_is_listed_not_the_first_alone(make_two_sets):
    folder = make_two_sets()
    (folder / "notes.txt").write_text("mine")
    change_json(folder / "provenance/other.json", lambda each: each["build"].update(seed=7))
    change_shard(shards_of(folder, split="test")[0], lambda table: table.take(list(range(len(table) - 1, -1, -1))))
    (folder / "notes.txt").write_text("changed")
    contracts = {each.contract for each in faults(folder)}
    assert {"files", "provenance", "rows", "counts"} <= contracts


def test_two_shards_with_another_class_order_are_found(make_two_sets):
    folder = make_two_sets()
    first, second, *_ = shards_of(folder)

    def turn(table: pa.Table) -> pa.Table:
        features = datasets.Features.from_arrow_schema(table.schema)
        features["label"] = datasets.ClassLabel(names=features["label"].names[::-1])
        return table.cast(features.arrow_schema)

    change_shard(second, turn)
    (fault,) = found(folder, "shards", "class names")
    assert fault.file == f"tiny-doctor/{second.name}"
    assert fault.seen.startswith("['plaque', 'papule', ")
    assert fault.allowed.endswith(f"as in tiny-doctor/{first.name}")


def test_a_shard_with_other_metadata_or_columns_is_found(make_two_sets):
    folder = make_two_sets()
    _, second, *_ = shards_of(folder)
    table = pq.read_table(second)
    pq.write_table(table.replace_schema_metadata({"huggingface": "{"}), second)
    assert found(folder, "shards", second.name, "metadata", "cannot be read")
    pq.write_table(table.drop_columns(["flags"]), second)
    assert found(folder, "shards", second.name, "schema")
    pq.write_table(table, second)
    assert found(folder, "shards", second.name, "no page index")
    assert found(folder, "shards", second.name, "sorted by image_id")


def test_rows_out_of_order_or_twice_are_found(make_two_sets):
    folder = make_two_sets()
    change_rows(folder, lambda rows: {**rows, "test": [*rows["test"][1:], rows["test"][0]]})
    assert found(folder, "rows", "test-00000", "rows sorted by image_id")
    folder = make_two_sets()
    change_rows(folder, lambda rows: {**rows, "test": [rows["test"][0], *rows["test"]]})
    assert found(folder, "groups", "2 rows", "one row per image_id")
    assert found(folder, "counts", "rows.n_rows", "27, as the shards hold")


def test_a_row_in_the_wrong_splits_file_is_found(make_two_sets):
    folder = make_two_sets()

    def move(rows):
        moved = rows["test"].pop()
        return {**rows, "train": sorted([*rows["train"], moved], key=lambda row: row["image_id"])}

    change_rows(folder, move)
    (fault,) = found(folder, "rows", "split_official")
    assert (fault.seen, fault.allowed) == ("'test'", "train or validation in a file of train")
    assert found(folder, "rows", ", path", "a path of split train", "this one says test")
    assert found(folder, "counts", "n_per_split")


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("image_id", "0" * 16, "the id of its path"),
        ("image_id", "short", "16 hex digits"),
        ("image_sha256", "F" * 64, "64 hex digits"),
        ("path", "../../etc/passwd", "a relative path below the photographs' folder"),
        ("label", 2, "the class folder in its path"),
        ("label", 9, "0 to 2, or nothing"),
        ("finish_reason", None, "a value in every row"),
        ("temperature", float("nan"), "0 or more"),
        ("n_output_tokens", -1, "0 or more"),
        ("flags", ["truncated", "empty"], "in order, each once"),
        ("flags", [None], "a value in every row"),
        ("split_official", "dev", "train, validation, test"),
        ("split_clean", "held-out", "train, validation, test, excluded"),
        ("split_clean", "test", "(its split_official) or excluded"),
    ],
)
def test_a_value_that_a_column_may_not_hold_is_found(make_two_sets, column, value, allowed):
    folder = make_two_sets()
    chosen = "train/papule/pap-4.jpg"

    def put(rows):
        train = [{**row, column: value} if row["path"] == chosen else row for row in rows["train"]]
        return {**rows, "train": train}

    change_rows(folder, put)
    assert found(folder, "rows", f", {column}", allowed)
    assert found(folder, "counts", "rows_sha256")


def test_a_changed_word_alone_breaks_the_hash_of_the_rows(make_two_sets):
    folder = make_two_sets()

    def put(rows):
        return {**rows, "train": [{**rows["train"][0], "description": "changed"}, *rows["train"][1:]]}

    change_rows(folder, put)
    (fault,) = found(folder, "counts")
    assert (fault.file, fault.place) == ("provenance/tiny-doctor.json", "build.rows_sha256")


def test_copies_that_are_kept_twice_or_stand_in_two_groups_are_found(make_two_sets):
    folder = make_two_sets()

    def keep(rows):
        return {
            split: [{**row, "split_clean": row["split_official"], "in_balanced_subset": False} for row in part]
            for split, part in rows.items()
        }

    change_rows(folder, keep)
    assert found(folder, "groups", "split_clean keeps one of the rows with the same image_sha256")
    assert found(folder, "groups", "one clean split for a group of copies")
    assert found(folder, "groups", "excluded, because the copies carry different labels")
    assert found(folder, "groups", "as in tiny-doctor")  # the other set says otherwise of the same photographs
    folder = make_two_sets()
    change_rows(folder, lambda rows: {s: [{**row, "duplicate_group": ""} for row in part] for s, part in rows.items()})
    assert found(folder, "groups", "one duplicate_group for all rows of the same image_sha256")


def test_what_a_strangers_file_holds_is_shown_as_escapes(make_two_sets):
    folder = make_two_sets(with_card=True)
    (folder / "evil\u202e\x1b[31m.txt").write_text("x")
    change_text(folder / "README.md", "# Machine descriptions", "# \u202eMachine\x1b[31m descriptions")
    told = "".join(f"{each.file}{each.place}{each.seen}{each.allowed}" for each in faults(folder, with_card=True))
    assert "\\u202e" in told
    assert all(each.isprintable() for each in told)


def test_a_list_of_checksums_that_points_outside_is_not_followed(make_two_sets, tmp_path):
    folder = make_two_sets()
    (tmp_path / "outside").write_text("x")
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../outside\nnonsense\n")
    assert [each.seen for each in check_files(folder)] == [f"{'0' * 64}  ../outside", "nonsense"]
