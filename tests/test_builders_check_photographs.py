import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.schemas import load_schema
from builders.build import BuildConfig, build
from builders.check import check_dataset
from builders.check.findings import misfit
from builders.dataset_folder import write_checksums
from builders.files import read_json, write_json
from dataset_card.card import write_card
from tests.damage import change_json, change_rows, faults, found, shards_of

pytestmark = pytest.mark.usefixtures("private_cache")
DERM = json.loads((Path(__file__).parents[1] / "annotate/schemas/derm.json").read_text())
FINDINGS = {
    "lesion_type": ["papule"],
    "colour": ["red"],
    "border": "well defined",
    "surface": ["smooth"],
    "distribution": "single",
    "site": "arm",
}


def test_an_embedded_photograph_with_other_bytes_is_found(make_two_sets):
    folder = make_two_sets(with_images=True)

    def swap(rows):
        first, second, *rest = rows["train"]
        image = {"bytes": second["image"]["bytes"], "path": first["path"]}
        return {
            **rows,
            "train": [{**first, "image": image}, {**second, "image": {**second["image"], "path": "x"}}, *rest],
        }

    change_rows(folder, swap)
    assert found(folder, "photographs", "bytes with sha256")
    assert found(folder, "photographs", "image.path", "'x'")


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "train/papule/pap-0.jpg"}])
def test_a_row_without_its_photograph_is_found(make_two_sets, image):
    folder = make_two_sets(with_images=True)
    shard = shards_of(folder)[0]
    table = pq.read_table(shard)
    images = pa.array([image, *table["image"].to_pylist()[1:]], table.schema.field("image").type)
    pq.write_table(table.set_column(0, table.schema.field("image"), images), shard)
    write_checksums(folder)
    row = table.to_pylist()[0]
    (fault,) = found(folder, "photographs", "no bytes")
    assert (fault.place, fault.allowed) == (
        f"row {row['image_id']}, image",
        f"the photograph with sha256 {row['image_sha256']}",
    )


def test_a_local_photograph_that_changed_since_it_was_described_is_found(make_two_sets, photographs):
    folder = make_two_sets()
    assert "whether the photographs are still those that were described" in check_dataset(folder).not_checked[0]
    (photographs / "train/papule/pap-0.jpg").write_bytes(b"other")
    (photographs / "test/plaque/pla-0.jpg").unlink()
    changed = found(folder, "photographs", images=photographs)
    assert sorted(each.seen for each in changed) == [  # both sets hold the two; each file is read once
        f"'train/papule/pap-0.jpg' with sha256 {hashlib.sha256(b'other').hexdigest()}",
        "no readable 'test/plaque/pla-0.jpg'",
    ]
    zipped = shutil.make_archive(str(folder.parent / "zipped"), "zip", photographs)
    assert found(folder, "photographs", images=Path(zipped)) == changed


def test_a_path_that_leaves_the_photographs_folder_is_never_read(make_two_sets, photographs):
    folder = make_two_sets()
    (photographs.parent / "secret.jpg").write_bytes(b"secret")

    def put(rows):
        return {**rows, "train": [{**rows["train"][0], "path": "../secret.jpg"}, *rows["train"][1:]]}

    change_rows(folder, put)
    assert not found(folder, "photographs", "secret", images=photographs)
    assert found(folder, "rows", "'../secret.jpg'", "a relative path below", images=photographs)


@pytest.fixture
def with_findings(make_two_sets, make_run, photographs, tmp_path):
    def build_it(findings):
        run = make_run("held", change=lambda row: replace(row, findings=findings))
        facts = read_json(run / "run.json")
        write_json(run / "run.json", {**facts, "schema": {"name": "derm", "sha256": load_schema("derm").sha256}})
        build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "held"), finish=write_card)
        return tmp_path / "held"

    return build_it


def test_findings_of_the_schema_are_sound_and_counted_in_the_card(with_findings):
    folder = with_findings(json.dumps(FINDINGS))
    assert faults(folder, with_card=True) == []
    assert "| lesion\\_type | papule (100 %) | 1 |" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("findings", "place", "allowed"),
    [
        (json.dumps({**FINDINGS, "border": "fuzzy"}), "findings.border", "well defined, poorly defined"),
        (json.dumps({**FINDINGS, "colour": []}), "findings.colour", "a list of 1 to 3"),
        (json.dumps({**FINDINGS, "colour": ["red", "mauve"]}), "findings.colour[1]", "red, pink"),
        (json.dumps({"site": "arm"}), "findings", "an object with lesion_type"),
    ],
)
def test_findings_outside_their_schema_are_found(with_findings, findings, place, allowed):
    folder = with_findings(json.dumps(FINDINGS))
    change_rows(
        folder, lambda rows: {s: [{**row, "findings": findings} for row in part] for s, part in rows.items()}, "held"
    )
    assert len(found(folder, "rows", f", {place}", allowed)) == 26


def test_findings_that_are_no_json_or_missing_without_their_flag_are_found(with_findings):
    folder = with_findings(json.dumps(FINDINGS))

    def put(rows):
        first, second, *rest = rows["train"]
        return {**rows, "train": [{**first, "findings": "{"}, {**second, "findings": ""}, *rest]}

    change_rows(folder, put, "held")
    assert found(folder, "rows", ", findings: '{'", "JSON")
    assert found(folder, "rows", "empty where the flag no_findings is set, and only there")


def test_a_schema_that_nobody_knows_is_said_to_be_unchecked(with_findings):
    folder = with_findings(json.dumps(FINDINGS))
    change_json(folder / "provenance/held.json", lambda each: each["run"]["schema"].update(sha256="0" * 64))
    report = check_dataset(folder)
    assert "this version does not know the schema derm" in report.not_checked[0]
    odd = {"name": "derm", "sha256": "0" * 64, "json_schema": {"type": "object", "properties": {"site": "anything"}}}
    change_json(folder / "provenance/held.json", lambda each: each["run"].update(schema=odd))
    assert "this version does not know the schema derm" in check_dataset(folder).not_checked[0]
    known = {"name": "derm", "sha256": "0" * 64, "json_schema": DERM}
    change_json(folder / "provenance/held.json", lambda each: each["run"].update(schema=known))
    assert check_dataset(folder).not_checked == [
        "whether the photographs are still those that were described: give --images ROOT"
    ]


def test_every_word_of_the_bundled_schema_fits_it_and_nothing_else_does():
    assert misfit(FINDINGS, DERM) == []
    for value in (
        None,
        [],
        "x",
        3,
        {**FINDINGS, "more": 1},
        {**FINDINGS, "site": None},
        {**FINDINGS, "surface": "smooth"},
    ):
        assert misfit(value, DERM)
