"""build: some of the photographs, and with a reviewer's marks; and what check says of both."""

import csv
import shutil

import datasets
import pytest

from builders.build import BuildConfig, build, named_run
from builders.check import check_dataset
from builders.dataset_folder import write_checksums
from builders.errors import UserError
from builders.files import read_json, write_json
from builders.review import CSV_COLUMNS, description_id
from builders.run_folder import read_run
from dataset_card.card import write_card
from dataset_card.check_card import check_card

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "dataset"


@pytest.fixture
def review(tmp_path):
    """Writes the marks that a gallery exports: (set name, image_id, text, verdict, note) each."""

    def write(*marks):
        path = tmp_path / "review.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(CSV_COLUMNS)
            for set_name, image_id, text, verdict, note in marks:
                rows.writerow([set_name, image_id, description_id(text), verdict, note, "2026-01-02T03:04:05Z"])
        return path

    return write


def rows_of(out, name=None):
    return {row["image_id"]: row for part in datasets.load_dataset(str(out), name).values() for row in part}


def test_marks_of_a_review_are_columns_of_the_set_that_they_are_of(photographs, make_run, out, review):
    runs = make_run("one"), make_run("two")
    texts = {key: each.description for key, each in read_run(runs[0]).descriptions.items() if each.status == "ok"}
    first, second, *_ = sorted(texts)
    marks = review(
        ("one", first, texts[first], "wrong", 'not "red", but\npink, <b>שלום</b>'),
        ("one", second, texts[second], "good", ""),
    )
    config = BuildConfig(images=photographs, runs=runs, out=out, review=marks)
    summary = build(config, finish=write_card)
    assert [each.n_reviewed for each in summary.sets.values()] == [2, 0]
    rows = rows_of(out, "one")
    assert (rows[first]["review"], rows[first]["review_note"]) == ("wrong", 'not "red", but\npink, <b>שלום</b>')
    assert (rows[second]["review"], rows[second]["review_note"]) == ("good", "")
    assert {row["review"] for key, row in rows.items() if key not in (first, second)} == {""}
    assert "review" not in next(iter(rows_of(out, "two").values()))
    assert "| `review` |" in (out / "README.md").read_text()
    assert not check_dataset(out).faults

    provenance = out / "provenance" / "one.json"
    facts = read_json(provenance)
    facts["build"]["n_reviewed"] = 3
    write_json(provenance, facts)
    write_checksums(out)
    assert any("build.n_reviewed" in fault.place for fault in check_dataset(out).faults)


def test_marks_of_other_texts_images_and_sets_are_refused(photographs, make_run, out, review):
    run = make_run("one")
    image_id = next(key for key, each in read_run(run).descriptions.items() if each.status == "ok")
    for mark, message in (
        (("one", image_id, "another text", "good", ""), "1 marks are of texts that the set 'one' no longer has"),
        (("one", "0" * 16, "a text", "good", ""), "1 marks are of images that the set 'one' does not hold"),
        (("three", image_id, "a text", "good", ""), "the review is of the sets three, and the dataset has one"),
    ):
        with pytest.raises(UserError, match=message):
            build(BuildConfig(images=photographs, runs=(run,), out=out, review=review(mark)))
        assert not out.exists()


def test_a_limit_takes_the_same_photographs_whenever_it_is_asked(photographs, make_run, out, tmp_path):
    runs = make_run("one"), make_run("two")
    whole, some = tmp_path / "whole", BuildConfig(images=photographs, runs=runs, out=out, limit=9)
    build(BuildConfig(images=photographs, runs=runs, out=whole), finish=write_card)
    summary = build(some, finish=write_card)
    assert {name: each.n_rows for name, each in summary.sets.items()} == {"one": 9, "two": 9}
    assert list(rows_of(out, "two")) != []
    assert set(rows_of(out)) == set(sorted(rows_of(whole))[:9])
    assert read_json(out / "provenance" / "one.json")["build"]["limit"] == 9
    assert summary.n_extra_images == 0
    assert not check_dataset(out).faults
    card, card_of_all = ((folder / "README.md").read_text(encoding="utf-8") for folder in (out, whole))
    assert "Taken were at most 9 of the source's usable photographs" in card
    assert "--limit 9" in card
    assert "usable photographs that were taken" in card
    assert "No photograph was left out" not in card
    assert "Taken were at most" not in card_of_all


def test_a_set_is_called_as_asked_for_and_the_card_tells_how(photographs, make_run, out, tmp_path):
    first = make_run("tiny")
    second = shutil.copytree(first, tmp_path / "run=2")
    assert named_run(f"tiny-again={second}") == (second, "tiny-again")
    assert named_run(str(second)) == (second, None)
    too_long = 300 * "a"
    assert named_run(f"{too_long}={second}") == (second, too_long)
    config = BuildConfig(images=photographs, runs=(first, second), names={second: "tiny-again"}, out=out)
    summary = build(config, finish=write_card)
    assert list(summary.sets) == ["tiny", "tiny-again"]
    assert read_json(out / "provenance/tiny-again.json")["run"]["set_name_of_run"] == "tiny"
    command = "vl-dermnet build IMAGES --run runs/tiny --run tiny-again=runs/tiny-again --out DATASET --seed 0"
    assert command in (out / "README.md").read_text()
    assert check_dataset(out, None, check_card).faults == []
    assert rows_of(out, "tiny").keys() == rows_of(out, "tiny-again").keys()


def test_an_unfinished_run_stands_in_the_cards_command(photographs, make_run, out):
    run = make_run(finished=False, keep=lambda row: row.label != "papule")
    build(BuildConfig(images=photographs, runs=(run,), out=out, allow_partial=True), finish=write_card)
    assert "--seed 0 --allow-partial\n" in (out / "README.md").read_text()
