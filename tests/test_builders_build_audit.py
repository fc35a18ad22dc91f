"""build with an audit: its groups decide the splits, its figures are in the dataset, and it must fit."""

import csv
import shutil

import datasets
import pytest

from builders.audit.config import AuditConfig
from builders.audit.groups import read_groups
from builders.audit.job import run_audit
from builders.build import BuildConfig, build
from builders.check import check_dataset
from builders.errors import UserError
from builders.files import read_json, write_json
from dataset_card.card import write_card
from dataset_card.check_card import check_card

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "dataset"


def audited(images, folder, **settings):
    run_audit(AuditConfig(images=str(images), out=folder, n_workers=0, **settings))
    return folder


def test_an_audits_groups_decide_the_splits_and_its_figures_are_in_the_dataset(photographs, make_run, out, tmp_path):
    audit = audited(photographs, tmp_path / "audit")
    config = BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit)
    build(config, finish=write_card)
    groups = read_groups(audit)
    rows = [row for split in datasets.load_dataset(str(out)).values() for row in split]
    assert any(groups.values())
    assert all(row["duplicate_group"] for row in rows if groups.get(row["image_id"]))
    assert read_json(out / "audit" / "audit.json") == read_json(audit / "audit.json")
    assert not list((out / "audit").glob("*.html"))
    assert check_dataset(out, None, check_card).faults == []


def test_an_audit_of_more_files_than_were_described_will_do(photographs, make_run, out, tmp_path):
    run = make_run()
    shutil.copy(photographs / "train/papule/pap-0.jpg", photographs / "train/papule/new.jpg")
    audit = audited(photographs, tmp_path / "audit")
    build(BuildConfig(images=photographs, runs=(run,), out=out, audit=audit, limit=9), finish=write_card)
    assert check_dataset(out, None, check_card).faults == []


def test_an_audit_of_other_photographs_is_refused(photographs, make_run, out, tmp_path):
    few = shutil.copytree(photographs, tmp_path / "few")
    (few / "train/papule/pap-1.jpg").unlink()
    (few / "train/papule/pap-0.jpg").write_bytes((few / "train/papule/pap-2.jpg").read_bytes())
    audit = audited(few, tmp_path / "audit")
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit))
    assert str(error.value) == (
        f"{audit} is not an audit of these 26 photographs; 1 are not in it: train/papule/pap-1.jpg;"
        " 1 have other bytes, another split or label: train/papule/pap-0.jpg\n"
        "  fix: vl-dermnet audit IMAGES --out AUDIT, of the photographs that were described"
    )
    assert not out.exists()


def test_an_audit_with_another_seed_is_refused(photographs, make_run, out, tmp_path):
    audit = audited(photographs, tmp_path / "audit", seed=7)
    with pytest.raises(UserError, match=r"derived its splits with seed 7, the dataset is built with 0") as error:
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit))
    assert str(error.value).endswith("fix: --seed 7")
    build(BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit, seed=7))


def test_an_audit_of_a_list_without_checksums_is_refused(photographs, make_run, out, tmp_path):
    listed = tmp_path / "list.csv"
    paths = sorted(path.relative_to(photographs).as_posix() for path in photographs.rglob("*.jpg"))
    with listed.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path"], *([path] for path in paths)])
    audit = audited(listed, tmp_path / "audit")
    with pytest.raises(UserError, match="it was made of a list that lacks checksums"):
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit))


def test_an_audit_whose_figures_are_damaged_is_refused(photographs, make_run, out, tmp_path):
    audit = audited(photographs, tmp_path / "audit")
    write_json(audit / "audit.json", [1])
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out, audit=audit))
    assert str(error.value) == (
        f"{audit}/audit.json does not tell what was audited and how\n  fix: vl-dermnet audit IMAGES --out AUDIT"
    )
