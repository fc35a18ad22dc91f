"""Groups that were found beside groups that somebody knows: counted pair by pair, and in every page."""

import csv

import pytest
from typer.testing import CliRunner

from annotate.cli import app
from builders.audit.config import AuditConfig
from builders.audit.groups import KINDS
from builders.audit.job import run_audit
from builders.errors import UserError
from builders.files import read_json


@pytest.fixture
def known(photographs, tmp_path):
    """A table that knows of every file: the class and number are its lesion, the copies' own or another one."""

    def write(changes=(), column="lesion_id", path_column="file_name", name="known.csv"):
        lesions = {path: f"{path.parent.name[:3]}-{path.stem[-1]}" for path in photographs.rglob("*.jpg")}
        named = {path.relative_to(photographs).as_posix(): lesion for path, lesion in lesions.items()} | dict(changes)
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[path_column, column], *named.items()])
        return tmp_path / name

    return write


def audit(photographs, tmp_path, known, column="lesion_id"):
    config = AuditConfig(images=str(photographs), out=tmp_path / "audit", n_workers=0, known=known, known_column=column)
    return run_audit(config)[0]


def test_pairs_are_counted_within_groups_found_known_and_both(photographs, known, tmp_path):
    singles = {path.relative_to(photographs).as_posix(): path.name for path in photographs.rglob("*.jpg")}
    lesions = dict.fromkeys(("train/papule/pap-0.jpg", "test/papule/copy of train.jpg", "test/papule/pap-0.jpg"), "A")
    found = audit(photographs, tmp_path, known({**{path: path for path in singles}, **lesions}))
    agreed = found.known_groups
    assert (agreed.column, agreed.n_files, agreed.n_without) == ("lesion_id", 26, 0)
    assert (agreed.n_groups, agreed.n_groups_across_splits) == (24, 1)
    assert agreed.n_links["byte_copy"] == 3  # the copies of the fixture, of which one is of lesion A
    assert agreed.n_links_agreed["byte_copy"] == 1
    assert agreed.n_pairs_known == 3
    assert agreed.recall == pytest.approx(agreed.n_pairs_agreed / 3, abs=1e-4)
    assert agreed.precision == pytest.approx(agreed.n_pairs_agreed / agreed.n_pairs, abs=1e-4)
    assert set(agreed.n_links) == set(KINDS)


def test_files_without_a_known_group_do_not_count(photographs, known, tmp_path):
    paths = [path.relative_to(photographs).as_posix() for path in photographs.rglob("*.jpg")]
    of_one = {"train/plaque/pla-3.jpg": "B", "train/plaque/copy.jpg": "B"}
    agreed = audit(photographs, tmp_path, known({**dict.fromkeys(paths, ""), **of_one})).known_groups
    assert (agreed.n_files, agreed.n_without) == (2, 24)
    assert (agreed.n_pairs, agreed.n_pairs_known, agreed.n_pairs_agreed) == (1, 1, 1)
    assert (agreed.precision, agreed.recall) == (1, 1)


def test_the_figures_stand_on_every_page_and_no_photograph_does_in_the_markdown(photographs, known, tmp_path):
    table = known(column="group", path_column="path")
    out = tmp_path / "audit"
    command = ["audit", str(photographs), "--out", str(out), "--known", str(table), "--workers", "0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    agreed = read_json(out / "audit.json")["known_groups"]
    told = f"{agreed['n_pairs_agreed']:,} of {agreed['n_pairs']:,}, precision {100 * agreed['precision']:.1f} %"
    assert told in done.stdout
    page = (out / "audit.md").read_text()
    assert page.startswith("# Audit of photographs\n\n- files: 27, refused 1\n")
    assert told in page
    assert "data:image" not in page
    assert "Beside known groups (group)" in (out / "audit.html").read_text()


@pytest.mark.parametrize(
    ("options", "column", "told"),
    [
        ({"column": "patient"}, "lesion_id", "a column lesion_id; its columns are file_name, patient"),
        ({"path_column": "name"}, "lesion_id", "needs a column path (or file_name)"),
    ],
)
def test_a_table_that_lacks_a_column_is_told_before_the_work(photographs, known, tmp_path, options, column, told):
    with pytest.raises(UserError) as error:
        audit(photographs, tmp_path, known(**options), column)
    assert told in str(error.value)
    assert not (tmp_path / "audit").exists()


def test_a_table_of_other_files_is_told(photographs, tmp_path):
    (tmp_path / "other.csv").write_text("path,group\nx/y.jpg,1\n")
    with pytest.raises(UserError, match=r"names none of the 26 files under audit; it names x/y\.jpg"):
        audit(photographs, tmp_path, tmp_path / "other.csv", "group")


def test_a_row_with_more_values_than_the_header_has_names_is_told(photographs, tmp_path):
    (tmp_path / "known.csv").write_text("path,lesion\ntrain/papule/pap-0.jpg,1,,\ntrain/papule/pap-1.jpg,arm,left,\n")
    with pytest.raises(UserError) as error:
        audit(photographs, tmp_path, tmp_path / "known.csv")
    assert str(error.value) == (
        f"{tmp_path}/known.csv, line 3 has more values than the header has names: left\n"
        '  fix: put a value that holds a comma in quotes: "a,b"'
    )
