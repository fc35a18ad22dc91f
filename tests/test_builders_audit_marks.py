"""Marks: lettering at one place in many photographs is found, and nothing is where there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from builders.audit.marks import find_marks
from builders.index import index_images

CLASSES = ("papule", "plaque")
SIZE = (120, 90)


def write_photographs(root: Path, n: int, is_marked) -> None:
    """`n` photographs of each class, noise lit from above; those with `is_marked(label, number)` bear text."""
    for label in CLASSES:
        folder = root / "train" / label
        folder.mkdir(parents=True)
        for number in range(n):
            generator = np.random.default_rng([number, CLASSES.index(label)])
            noise = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(SIZE)
            light = np.linspace(1, 0.6, SIZE[1])[:, None, None]
            image = Image.fromarray((np.asarray(noise) * light).astype(np.uint8))
            if is_marked(label, number):
                ImageDraw.Draw(image).text((20, 60), "example.org", fill=(250, 250, 250), font_size=14)
            image.save(folder / f"{number}.jpg", quality=85)


def marks_of(root: Path):
    return find_marks(str(root), index_images(root, n_workers=0), seed=0, n_workers=0)


def test_a_mark_on_one_class_is_found_there_with_its_place_and_its_carriers(tmp_path):
    write_photographs(tmp_path, 60, lambda label, number: label == "plaque" and number % 4)
    found = marks_of(tmp_path)
    mark = next(mark for mark in found.marks if mark.label == "plaque")
    assert {mark.label for mark in found.marks} <= {"", "plaque"}
    assert (mark.width_px, mark.height_px, mark.n_examined, mark.n_photographs) == (*SIZE, 60, 60)
    assert 40 <= mark.n_carriers <= 46
    assert 0.1 < mark.left < 0.25 < 0.5 < mark.right < 0.95
    assert 0.6 < mark.top < 0.75 < mark.bottom < 0.95
    assert all(int(Path(path).stem) % 4 for path in mark.examples)
    assert (found.n_photographs, found.n_covered) == (120, 120)


def test_photographs_without_a_mark_have_none(tmp_path):
    write_photographs(tmp_path, 60, lambda label, number: False)
    assert marks_of(tmp_path).marks == []


def test_sizes_that_few_photographs_have_are_not_judged(tmp_path):
    write_photographs(tmp_path, 14, lambda label, number: True)
    found = marks_of(tmp_path)
    assert (found.n_photographs, found.n_covered, found.n_looks, found.marks) == (28, 0, 0, [])


@pytest.mark.slow  # 10,015 photographs
def test_nothing_is_found_on_ham10000(shared_data):
    images = shared_data / "ham10000" / "images_200x150.zip"
    assert find_marks(str(images), index_images(images), seed=0, n_workers=None).marks == []
