"""build, from runs to a dataset folder. One file, although long: one command, each test a way to call it."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from builders.build import BuildConfig, build
from builders.dataset_folder import read_checksums, read_sets
from builders.files import read_json, sha256_of, write_json
from builders.run_folder import read_run
from builders.schema import image_id_of
from dataset_card.card import write_card

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "dataset"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def id_and_path(path):
    return f"{image_id_of(path)} ({path})"


def test_load_dataset_returns_what_was_described(photographs, make_run, out):
    run = read_run(make_run())
    summary = build(BuildConfig(images=photographs, runs=(run.path,), out=out))
    loaded = datasets.load_dataset(str(out))
    index = {row.image_id: row for row in run.index}
    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == 26 == summary.sets["tiny-doctor"].n_rows
    for split, part in loaded.items():
        assert part["image_id"] == sorted(part["image_id"])
        names = part.features["label"].names
        for row in part:
            source, description = index[row["image_id"]], run.descriptions[row["image_id"]]
            assert (row["path"], row["image_sha256"], split) == (source.path, source.image_sha256, source.split)
            assert names[row["label"]] == source.label
            assert row["flags"] == list(description.flags)
            for name in (
                "description",
                "finish_reason",
                "temperature",
                "n_image_tokens",
                "n_prompt_tokens",
                "n_output_tokens",
                "n_tiles",
            ):
                assert row[name] == getattr(description, name)
    assert "described_at" not in rows[0]


def test_findings_are_a_column_of_the_sets_that_have_them_and_only_of_these(photographs, make_run, out):
    plain, with_findings = (
        make_run("plain"),
        make_run("held", change=lambda row: replace(row, findings='{"site":"arm"}')),
    )
    run = read_json(with_findings / "run.json")
    write_json(with_findings / "run.json", {**run, "schema": {"name": "derm", "sha256": "0" * 64}})
    build(BuildConfig(images=photographs, runs=(plain, with_findings), out=out), finish=write_card)
    assert set(datasets.load_dataset(str(out), "held")["train"]["findings"]) == {'{"site":"arm"}'}
    assert "findings" not in datasets.load_dataset(str(out), "plain")["train"].features


def test_photographs_keep_their_bytes_and_their_path(photographs, make_run, out):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=out, with_images=True))
    loaded = datasets.load_dataset(str(out))
    assert loaded["train"].features["image"] == datasets.Image()
    sideways = next(row for row in loaded["train"] if row["path"].endswith("pap-1.jpg"))
    assert sideways["image"].size == (16, 24)  # 24 x 16 as stored, turned by its EXIF orientation
    for split in loaded.values():
        for row in split.cast_column("image", datasets.Image(decode=False)):
            assert row["image"] == {"bytes": (photographs / row["path"]).read_bytes(), "path": row["path"]}


def test_two_runs_make_two_sets_and_one_is_the_default(photographs, make_run, out):
    runs = (make_run(), make_run("other", text=lambda row: f"Other words for {row.image_id}."))
    summary = build(BuildConfig(images=photographs, runs=runs, out=out, primary="other", with_images=True))
    assert list(summary.sets) == ["other", "tiny-doctor"]
    default = datasets.load_dataset(str(out), split="test")
    assert default[0]["description"] == f"Other words for {default[0]['image_id']}."
    named = datasets.load_dataset(str(out), "tiny-doctor", split="test")
    assert named[0]["description"].startswith("A photograph of skin, ")
    assert "image" in default.column_names
    assert "image" not in named.column_names  # the bytes are there once
    assert named["split_clean"] == default["split_clean"]


def test_an_added_set_leaves_the_others_shards_as_they_were(photographs, make_run, out):
    first = make_run()
    build(BuildConfig(images=photographs, runs=(first,), out=out))
    before = {path: content for path, content in contents(out).items() if path.startswith("tiny-doctor/")}
    build(BuildConfig(images=photographs, runs=(first, make_run("other")), out=out))
    assert before.items() <= contents(out).items()


@pytest.mark.parametrize("with_images", [False, True])
def test_the_same_inputs_give_the_same_bytes(photographs, make_run, tmp_path, with_images):
    runs = (make_run(), make_run("other"))
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", photographs)
    for images, name in ((photographs, "first"), (zipped, "second")):
        config = BuildConfig(images=images, runs=runs, out=tmp_path / name, with_images=with_images, shard_bytes=6_000)
        build(config)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    n_shards = {name: len(list((tmp_path / "first" / name).iterdir())) for name in ("tiny-doctor", "other")}
    assert n_shards == {"tiny-doctor": 6 if with_images else 3, "other": 3}


def test_a_rebuilt_dataset_is_not_served_from_the_cache_of_the_old(photographs, make_run, tmp_path):
    for folder, word in (("a", "one"), ("a", "two"), ("b", "six")):
        run = make_run(f"{folder}-{word}", text=lambda row, word=word: word)
        facts = read_json(run / "run.json")
        (run / "run.json").write_text(json.dumps(facts | {"set_name": "same"}))
        build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / folder / "dataset"))
        loaded = datasets.load_dataset(str(tmp_path / folder / "dataset"), split="train")
        assert set(loaded["description"]) == {word}


def test_copies_and_contradictions_are_marked(photographs, make_run, out):
    summary = build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    splits = summary.splits
    assert (splits.n_groups, splits.n_rows_in_groups) == (3, 6)
    assert (splits.n_excluded_conflict, splits.n_excluded_across_splits, splits.n_excluded_surplus) == (2, 1, 1)
    rows = {row["path"]: row for split in datasets.load_dataset(str(out)).values() for row in split}
    copy, original = rows["test/papule/copy of train.jpg"], rows["train/papule/pap-0.jpg"]
    assert copy["duplicate_group"] == original["duplicate_group"] == original["image_sha256"][:16]
    assert (copy["split_official"], copy["split_clean"]) == ("test", "excluded")
    assert original["split_clean"] == "train"
    assert rows["test/plaque/pla-1.jpg"]["split_clean"] == rows["train/papule/pap-2.jpg"]["split_clean"] == "excluded"


def test_nothing_disappears_silently(photographs, make_run, out):
    failing = image_id_of("train/papule/pap-3.jpg")

    def fail(description):
        if description.image_id != failing:
            return description
        return replace(description, status="failed", reason='engine said "no", twice', description="")

    summary = build(BuildConfig(images=photographs, runs=(make_run(change=fail),), out=out))
    assert summary.sets["tiny-doctor"].n_left_out == {"failed": 1, "refused": 1}
    with (out / "provenance/tiny-doctor.not-described.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["status"]) for row in rows] == [
        ("train/papule/pap-3.jpg", "failed"),
        ("train/plaque/broken.jpg", "refused"),
    ]
    assert rows[0]["reason"] == 'engine said "no", twice'
    assert len(rows) + summary.sets["tiny-doctor"].n_rows == 27


def test_provenance_holds_the_whole_run(photographs, make_run, out):
    run = make_run()
    build(BuildConfig(images=photographs, runs=(run,), out=out, seed=5))
    described = read_sets(out)[0]
    assert described.run == read_json(run / "run.json")
    assert described.summary == read_json(run / "summary.json")
    assert (described.is_primary, described.build["seed"], described.build["rows"]["n_rows"]) == (True, 5, 26)


def test_checksums_cover_every_file_and_what_finish_wrote(photographs, make_run, out):
    def write_card(folder):
        assert folder != out
        (folder / "README.md").write_text("card")

    build(BuildConfig(images=photographs, runs=(make_run(),), out=out), finish=write_card)
    files = {path for path in contents(out) if path != "SHA256SUMS"}
    assert "README.md" in files
    assert read_checksums(out) == {path: sha256_of(out / path) for path in files}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)


def test_without_a_card_the_readme_still_says_what_load_dataset_needs(photographs, make_run, out):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    configs = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])["configs"]
    assert configs[0]["default"] is True
    assert configs[0]["data_files"] == [
        {"split": "train", "path": "tiny-doctor/train-*"},
        {"split": "test", "path": "tiny-doctor/test-*"},
    ]


def test_shards_of_all_sets_and_splits_have_one_schema(photographs, make_run, out):
    build(BuildConfig(images=photographs, runs=(make_run(), make_run("other")), out=out, shard_bytes=2_000))
    shards = sorted(out.glob("*/*.parquet"))
    assert len(shards) > 4
    first, *others = (pq.read_schema(shard) for shard in shards)
    assert all(other.equals(first, check_metadata=True) for other in others)
    assert b"huggingface" in first.metadata


def test_a_folder_named_like_a_column_is_only_a_name(photographs, make_run, tmp_path):
    folder = tmp_path / "lr=3"
    shutil.copytree(make_run(), folder / "run")
    summary = build(BuildConfig(images=photographs, runs=(folder / "run",), out=folder / "dataset"))
    assert summary.sets["tiny-doctor"].n_rows > 0


def test_photographs_that_nobody_indexed_are_counted(photographs, make_run, out):
    run = make_run()
    shutil.copy(photographs / "train/papule/pap-0.jpg", photographs / "train/papule/new.jpg")
    assert build(BuildConfig(images=photographs, runs=(run,), out=out)).n_extra_images == 1


def test_runs_may_cover_different_files_of_one_collection(photographs, make_run, out, tmp_path):
    part = shutil.copytree(photographs, tmp_path / "part", ignore=shutil.ignore_patterns("papule"))
    summary = build(BuildConfig(images=photographs, runs=(make_run(), make_run("part", images=part)), out=out))
    assert {name: each.n_rows for name, each in summary.sets.items()} == {"tiny-doctor": 26, "part": 17}
    named = datasets.load_dataset(str(out), "part")
    assert named["train"].features["label"].names[1:] == ["papule", "plaque"]  # the same classes in every set
