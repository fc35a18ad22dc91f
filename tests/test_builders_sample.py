"""The sample photographs: their bytes, their layout with its flaws, and the truth beside them."""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from builders.errors import UserError
from builders.sample import ATTRIBUTES_FILE, SampleSummary, write_sample
from builders.sample.attributes import (
    ATTRIBUTE_NAMES,
    DIAMETER_MM,
    MORPHOLOGIES,
    Attributes,
    all_attributes,
    draw_attributes,
)
from builders.sample.contact_sheet import contact_sheet
from builders.sample.photograph import render_image, render_photograph

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Path, SampleSummary]:
    out = tmp_path_factory.mktemp("sample") / "photos"
    return out, write_sample(out, n_images=24, seed=5, broken=True)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / ATTRIBUTES_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, OSError):
        return False
    return True


def test_a_photograph_depends_on_its_seed_and_number_alone(sample):
    out, _ = sample
    first = next(row for row in rows_of(out) if row["path"].endswith("papule-1.jpg"))
    assert (out / first["path"]).read_bytes() == render_photograph(5, 2).jpeg
    assert render_photograph(5, 2).jpeg != render_photograph(6, 2).jpeg


def test_a_larger_sample_holds_the_smaller_one(sample, tmp_path):
    out, _ = sample
    write_sample(tmp_path / "few", n_images=4, seed=5)
    for row in rows_of(tmp_path / "few"):
        assert (tmp_path / "few" / row["path"]).read_bytes() == (out / row["path"]).read_bytes()


def test_processes_change_no_byte(tmp_path):
    write_sample(tmp_path / "many", n_images=100, seed=9)
    for row, number in zip(rows_of(tmp_path / "many")[-3:], (97, 98, 99), strict=True):
        assert (tmp_path / "many" / row["path"]).read_bytes() == render_photograph(9, number).jpeg


def test_files_lie_as_dermnet_ships_them_and_each_has_its_truth(sample):
    out, summary = sample
    rows = rows_of(out)
    files = {path.relative_to(out).as_posix() for path in out.glob("*/*/*.jpg") if readable(path)}
    assert files == {row["path"] for row in rows}
    assert len(rows) == summary.n_train + summary.n_test == 24 + 2
    assert {row["split"] for row in rows} == {"train", "test"}
    assert {row["label"] for row in rows} == set(MORPHOLOGIES)
    assert {path.name for path in out.iterdir()} == {"train", "test", ATTRIBUTES_FILE}
    for row in rows:
        split, label, name = row["path"].split("/")
        assert (split, label) == (row["split"], row["label"])
        assert name.startswith(row["morphology"] + "-")
        truth = Attributes(**{name: row[name] for name in ATTRIBUTE_NAMES})
        assert truth.morphology == row["morphology"]
        assert {"single": 1, "few": 2, "many": 3}[row["count"]] == 1 + (int(row["n_lesions"]) > 1) + (
            int(row["n_lesions"]) > 4
        )


def test_one_file_is_in_both_splits_and_one_under_two_classes(sample):
    out, summary = sample
    by_bytes: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(out):
        by_bytes.setdefault(hashlib.sha256((out / row["path"]).read_bytes()).hexdigest(), []).append(row)
    duplicate, conflict = (copies for copies in by_bytes.values() if len(copies) > 1)
    assert (summary.n_duplicates, summary.n_conflicts) == (1, 1)
    assert {row["split"] for row in duplicate} == {"train", "test"}
    assert len({row["label"] for row in duplicate}) == 1
    assert len({row["label"] for row in conflict}) == 2
    assert len({row["morphology"] for row in conflict}) == 1
    assert len({row["split"] for row in conflict}) == 1


def test_about_a_tenth_is_stored_turned_and_exif_turns_it_back(sample):
    out, summary = sample
    turned = [row for row in rows_of(out) if row["orientation"] != "1"]
    assert len(turned) == summary.n_rotated == 3
    for row in rows_of(out):
        with Image.open(out / row["path"]) as image:
            assert image.getexif().get(ORIENTATION, 1) == int(row["orientation"])


def test_broken_files_are_there_on_request_only(sample, tmp_path):
    out, summary = sample
    n_unreadable = sum(not readable(path) for path in out.glob("*/*/*.jpg"))
    assert n_unreadable == summary.n_broken == 5
    assert write_sample(tmp_path / "whole", n_images=2, seed=5).n_broken == 0


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and is not an empty folder"):
        write_sample(tmp_path, n_images=1, seed=0)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_class_is_decided_by_surface_and_size():
    decided: dict[tuple[str, str], set[str]] = {}
    for attributes in all_attributes():
        decided.setdefault((attributes.surface, attributes.size), set()).add(attributes.morphology)
    assert all(len(names) == 1 for names in decided.values())
    for (_, size), (name,) in ((key, tuple(names)) for key, names in decided.items()):
        assert (DIAMETER_MM[size] < 10) == (name in ("macule", "papule", "vesicle", "pustule"))


@pytest.mark.parametrize("morphology", sorted(MORPHOLOGIES))
def test_what_is_drawn_is_what_is_allowed(morphology):
    rng = np.random.default_rng(0)
    allowed = {attributes for attributes in all_attributes() if attributes.morphology == morphology}
    assert {draw_attributes(rng, morphology) for _ in range(40)} <= allowed


@pytest.mark.parametrize("size_px", [(720, 480), (480, 720), (480, 480), (1024, 768)])
def test_an_image_has_the_size_asked_for_and_shows_the_lesion(size_px):
    wide = Attributes("single", "large", "round", "brown", "well_defined", "flat", "trunk", "light")
    rendering = render_image(np.random.default_rng(3), wide, size_px)
    assert rendering.image.size == size_px
    assert rendering.n_lesions == 1
    assert 0.1 < rendering.cover.mean() / 255 < 0.45
    brightness = np.asarray(rendering.image.convert("L"), dtype=float)
    assert np.percentile(brightness, 5) < 0.7 * np.median(brightness)


def test_most_photographs_have_dermnets_size():
    sizes = [Image.open(io.BytesIO(render_photograph(1, number).jpeg)).size for number in range(30)]
    assert sizes.count((720, 480)) > 12
    assert len(set(sizes)) >= 3


def test_a_contact_sheet_has_rows_of_four():
    assert contact_sheet(0, [0, 1, 2, 3, 4]).size == (960, 364)
