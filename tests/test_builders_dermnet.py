"""DermNet's layout is recognised by its class names, and what differs from Kaggle's set is said, class by class."""

import csv
from html import unescape

from PIL import Image
from typer.testing import CliRunner

from annotate.cli import app
from builders.dermnet import CLASSES, N_FILES, compare_with_dermnet, files_per_class
from builders.files import read_json
from builders.index import index_images
from builders.schema import IndexRow, image_id_of


def rows_of(counts: dict[tuple[str, str], int]) -> list[IndexRow]:
    paths = [f"{split}/{label}/{number}.jpg" for (split, label), n in counts.items() for number in range(n)]
    return [
        IndexRow(image_id_of(path), "", path, *path.split("/")[:2], 0, 0, 0, "", "refused", "empty") for path in paths
    ]


def kaggle() -> dict[tuple[str, str], int]:
    return {(split, label): CLASSES[label][at] for label in CLASSES for at, split in enumerate(("train", "test"))}


def test_the_whole_set_is_as_known():
    assert compare_with_dermnet(files_per_class(rows_of(kaggle()))) == [
        "DermNet: all 23 classes and 19,559 files of Kaggle's set, with its numbers per class"
    ]


def test_every_difference_is_one_line():
    counts = kaggle()
    counts["train", "Vasculitis Photos"] += 1
    counts["train", "Eczema Photos"] -= 235
    del counts["test", "Urticaria Hives"]
    counts["validation", "Eczema Photos"] = 12
    counts["train", "Moles of mine"] = 3
    assert compare_with_dermnet(files_per_class(rows_of(counts))) == [
        "DermNet: 23 of 23 classes, 19,287 files; Kaggle's set has 19,559",
        "  train/Eczema Photos: 1,000 files, known are 1,235 (-235)",
        "  validation/Eczema Photos: 12 files, known are 0 (+12)",
        "  train/Moles of mine: 3 files, known are 0 (+3)",
        "  test/Urticaria Hives: 0 files, known are 53 (-53)",
        "  train/Vasculitis Photos: 417 files, known are 416 (+1)",
    ]


def test_a_tree_of_the_same_folder_names_is_recognised(tmp_path):
    for number, label in enumerate(CLASSES):
        for split in ("train", "test"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "a.png")
    lines = compare_with_dermnet(files_per_class(index_images(tmp_path, n_workers=0)))
    assert lines[0] == "DermNet: 23 of 23 classes, 46 files; Kaggle's set has 19,559"
    assert lines[1] == "  test/Acne and Rosacea Photos: 1 files, known are 312 (-311)"
    assert len(lines) == 1 + 46


def test_another_set_is_not_compared():
    labels = list(CLASSES)[:11]
    assert compare_with_dermnet(files_per_class(rows_of({("train", label): 2 for label in labels}))) == []
    assert compare_with_dermnet({}) == []
    assert (
        len(
            compare_with_dermnet(
                files_per_class(rows_of({("train", label): 2 for label in [*labels, "Vasculitis Photos"]}))
            )
        )
        == 47
    )


def test_the_counts_are_those_of_the_published_index(shared_data):
    with (shared_data / "dermnet_index" / "classes.csv").open(newline="") as file:
        listed = {row["class"]: (int(row["train"]), int(row["test"])) for row in csv.DictReader(file)}
    assert listed == CLASSES
    assert N_FILES == 19_559


def test_audit_and_build_show_the_comparison(tmp_path):
    """Photographs of DermNet's folders, far too few: told on the way, and kept in what is written."""
    root = tmp_path / "photos"
    for number, label in enumerate(CLASSES):
        path = root / "train" / label / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (80, 80), (number, 2 * number, 90)).save(path)
    runner = CliRunner()
    told = f"DermNet: 23 of 23 classes, 23 files; Kaggle's set has {N_FILES:,}"
    short = f"  train/Urticaria Hives: 1 files, known are {CLASSES['Urticaria Hives'][0]:,} (-211)"
    done = runner.invoke(app, ["audit", str(root), "--out", str(tmp_path / "audit"), "--workers", "0"])
    assert done.exit_code == 0
    assert told in done.stdout.splitlines()
    assert short in done.stdout.splitlines()
    assert read_json(tmp_path / "audit/audit.json")["dermnet"][0] == told
    assert told in unescape((tmp_path / "audit/audit.html").read_text())
    run = ["annotate", str(root), "--out", str(tmp_path / "run"), "--model", "tiny-internvl", "--engine", "scripted"]
    assert runner.invoke(app, run).exit_code == 0
    build = ["build", str(root), "--run", str(tmp_path / "run"), "--audit", str(tmp_path / "audit")]
    done = runner.invoke(app, [*build, "--out", str(tmp_path / "dataset")])
    assert done.exit_code == 0
    assert told in done.stderr.splitlines()
    assert f"- {told.replace('_', ' ')}." in (tmp_path / "dataset/README.md").read_text()
