"""What is audited: a bare list, an index or photographs; copies, names and classes as a list alone tells them."""

import shutil
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.audit.catalogue import Catalogue, read_catalogue
from builders.audit.config import AuditConfig
from builders.audit.contents import balance, contents
from builders.audit.copies import byte_copies, surplus_rows
from builders.audit.names import file_names, stem_of
from builders.errors import UserError
from builders.index import index_images, write_index

LIST = """path,split,label,sha256
train/a/x-1.jpg,train,a,{0}
train/a/x-2.jpg,train,a,{1}
train/b/x-1.jpg,train,b,{0}
train/b/y 9.jpg,train,b,{2}
test/a/x-1.jpg,test,a,{0}
test/b/y 10.jpg,test,b,{3}
test/b/z.jpg,test,b,{2}
"""


@pytest.fixture
def listed(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(LIST.format(*(sha256(bytes([n])).hexdigest() for n in range(4))))
    return file


def catalogue_of(images, **options) -> Catalogue:
    return read_catalogue(AuditConfig(images=str(images), out=images.parent / "audit", **options), print)


def test_a_bare_list_tells_copies_and_names_and_no_sizes(listed):
    catalogue = catalogue_of(listed)
    copies = byte_copies(catalogue)
    assert [row.path for row in surplus_rows(catalogue)] == ["train/b/x-1.jpg", "test/a/x-1.jpg", "test/b/z.jpg"]
    assert (copies.n_surplus, copies.n_surplus_per_split) == (3, {"train": 1, "test": 2})
    assert (copies.n_groups, copies.n_groups_across_splits, copies.n_conflicts) == (2, 2, 1)
    assert copies.conflicts == [["train/a/x-1.jpg", "train/b/x-1.jpg", "test/a/x-1.jpg"]]
    assert contents(catalogue).tiny is None
    assert catalogue.images is None


def test_names_give_labels_away(listed):
    names = file_names(catalogue_of(listed))
    assert names.n_in_several_labels == 1
    lookup, copies = names.lookup["test"], names.copies["test"]
    assert (lookup.n_files, lookup.n_unknown_stems, lookup.accuracy, lookup.majority_accuracy) == (3, 1, 0.6667, 0.3333)
    assert (copies.n_surplus, copies.n_same_label, copies.n_other_label_only) == (2, 1, 0)
    assert copies.n_same_label_per_label == {"a": 1}


@pytest.mark.parametrize(
    ("name", "stem"),
    [("Acne-cyst-12.jpg", "acne-cyst"), ("07Face0120.jpg", "07face"), ("a.b-3.JPEG", "a.b"), ("12.jpg", "")],
)
def test_a_stem_is_a_name_without_ending_and_number(name, stem):
    assert stem_of(name) == stem


def test_classes_are_counted_by_split(listed):
    train, test = balance(catalogue_of(listed)).values()
    assert (train.n_labels, train.smallest, train.largest, train.ratio) == (2, 2, 2, 1.0)
    assert test.n_per_label == {"a": 1, "b": 2}


def test_a_list_without_split_and_label_takes_them_from_the_path_and_parquet_is_read_alike(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffpath\nphotos/val/eczema/1.jpg\ntrain/acne/2.jpg\n", encoding="utf-8")
    pq.write_table(pa.table({"path": ["photos/val/eczema/1.jpg", "train/acne/2.jpg"]}), tmp_path / "b.parquet")
    from_csv, from_parquet = catalogue_of(tmp_path / "a.csv"), catalogue_of(tmp_path / "b.parquet")
    assert from_csv == from_parquet
    assert [(row.split, row.label) for row in from_csv.rows] == [("validation", "eczema"), ("train", "acne")]
    assert byte_copies(from_csv).n_surplus == 0
    assert not from_csv.has_all_checksums


def test_known_copies_are_surplus_though_their_originals_are_not_named(tmp_path):
    (tmp_path / "list.csv").write_text("path\ntrain/a/1.jpg\ntrain/a/2.jpg\ntest/a/3.jpg\n")
    same = sha256(b"").hexdigest()
    (tmp_path / "copies.csv").write_text(f"path,sha256\ntrain/a/2.jpg,{same}\ntest/a/3.jpg,{same}\n")
    copies = byte_copies(catalogue_of(tmp_path / "list.csv", copies=tmp_path / "copies.csv"))
    assert (copies.n_surplus_per_split, copies.n_groups) == ({"train": 1, "test": 1}, 1)
    assert copies.basis.startswith("a list of surplus copies")


def test_an_index_stands_for_its_photographs_with_or_without_them(photographs, tmp_path):
    rows = index_images(photographs)
    write_index(tmp_path / "index.parquet", rows[::-1])
    alone = catalogue_of(tmp_path / "index.parquet")
    beside = catalogue_of(photographs, index=tmp_path / "index.parquet")
    assert alone.rows == beside.rows == rows
    assert (alone.images, beside.images) == (None, str(photographs))
    assert contents(alone).n_refused == 1
    assert len(contents(alone).tiny or []) == 26  # 24 × 16 px


def test_a_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / "list.csv").write_bytes("path\ntrain/nævus/1.jpg\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"^cannot read .*list\.csv as CSV: 'utf-8' codec .*\n  fix: save it as CSV in"):
        catalogue_of(tmp_path / "list.csv")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.large_binary())])])
def test_a_table_of_photographs_is_no_list_however_their_bytes_are_stored(photographs, tmp_path, kind):
    paths = ["train/papule/pap-0.jpg", "train/papule/pap-1.jpg"]
    images = [(photographs / path).read_bytes() for path in paths]
    values = [{"bytes": image} for image in images] if pa.types.is_struct(kind) else images
    pq.write_table(pa.table({"path": paths, "image": pa.array(values, kind)}), tmp_path / "photos.parquet")
    catalogue = catalogue_of(tmp_path / "photos.parquet")
    assert not catalogue.is_bare
    assert [row.image_sha256 for row in catalogue.ok_rows] == [sha256(image).hexdigest() for image in images]


def test_an_index_that_lacks_files_or_names_others_is_refused(photographs, tmp_path):
    index = tmp_path / "index.parquet"
    write_index(index, index_images(photographs))
    shutil.copy(photographs / "train/papule/pap-0.jpg", photographs / "test/plaque/leak.jpg")
    (photographs / "train/papule/pap-1.jpg").unlink()
    with pytest.raises(UserError) as caught:
        catalogue_of(photographs, index=index)
    assert str(caught.value) == (
        f"{index} is not an index of {photographs} as it is now; it lacks 1 files: test/plaque/leak.jpg;"
        " 1 of its files are gone: train/papule/pap-1.jpg\n"
        f"  fix: vl-dermnet index '{photographs}' --out '{index}'   or leave --index out"
    )


def test_tiny_files_are_small_in_pixels_or_in_bytes(photographs):
    catalogue = catalogue_of(photographs)
    large = [replace(row, width_px=64, height_px=64, n_bytes=2048) for row in catalogue.ok_rows]
    assert contents(replace(catalogue, rows=large)).tiny == []
    (tiny,) = contents(replace(catalogue, rows=[*large[1:], replace(large[0], n_bytes=2047)])).tiny or []
    assert tiny == {"path": large[0].path, "reason": "64 × 64 px, 2,047 bytes"}


def test_lists_that_cannot_be_audited_are_refused_with_what_is_wrong(tmp_path):
    file = tmp_path / "list.csv"

    def error_of(text, **options):
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            catalogue_of(file, **options)
        return str(caught.value).replace(str(tmp_path), "TMP")

    assert error_of("path\n") == "TMP/list.csv lists no file: it has a header and no rows"
    assert error_of("file,label\na.jpg,x\n") == (
        "TMP/list.csv needs a path in every row, in a column 'path'; its columns are file, label\n"
        "  fix: columns: path, and if known split, label, sha256"
    )
    assert error_of("path\na.jpg\na.jpg\n") == "TMP/list.csv lists 'a.jpg' twice; a path stands for one file"
    assert error_of("path,split\na.jpg,dev\n") == (
        "TMP/list.csv: unknown split 'dev' of 'a.jpg'; choose one of: test, train, val, valid, validation"
    )
    assert error_of("path,sha256\na.jpg,abc\n") == "TMP/list.csv: 'abc' of 'a.jpg' is no sha256: 64 hex digits"
    assert error_of("path,label\na.jpg,x,y\n") == (
        "TMP/list.csv, line 2 has more values than the header has names: y\n"
        '  fix: put a value that holds a comma in quotes: "a,b"'
    )
    copies = tmp_path / "copies.csv"
    copies.write_text("path,sha256\nb.jpg," + "0" * 64)
    assert error_of("path\na.jpg\n", copies=copies) == (
        "TMP/copies.csv lists 'b.jpg', which is none of the 1 files under audit"
    )
    assert error_of("path\na.jpg\n", index=tmp_path / "index.parquet") == (
        "--index TMP/index.parquet goes with the photographs, but IMAGES is a list: TMP/list.csv\n"
        "  fix: vl-dermnet audit PHOTOGRAPHS --index FILE --out AUDIT   or leave --index out"
    )


def test_known_copies_do_not_go_with_photographs(photographs, tmp_path):
    message = "--copies is for a bare list of paths; photographs are compared by their own bytes"
    with pytest.raises(UserError, match=f"^{message}$"):
        catalogue_of(photographs, copies=tmp_path / "copies.csv")
