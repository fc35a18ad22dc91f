"""bench build: what it measures it measures for real; figures are kept, timings are never asserted."""

import json
import os
import random
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from builders.bench import rivals
from builders.bench.job import BenchConfig, bench_build, exponent
from builders.bench.measured import run_measured
from builders.bench.photographs import link_smaller
from builders.bench.report import as_markdown, why_not
from builders.bench.scripted_run import write_scripted_run
from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from builders.index import index_images, write_index
from builders.sample import write_sample

MACHINE = {"system": "Linux", "n_cores": 2, "memory_gib": 8.0, "gpus": []}
AT = "2026-01-02T03:04:05Z"
INDEX = {
    "ratios": {"index": 1.5, "pillow_per_core": 1.75},
    "share_decoding": 0.8,
    "share_sha256": 0.05,
    "cores_busy": 0.9,
}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_a_linked_sample_is_the_sample_of_that_size(tmp_path):
    write_sample(tmp_path / "large", n_images=24, seed=0)
    write_sample(tmp_path / "small", n_images=12, seed=0)
    assert link_smaller(tmp_path / "large", tmp_path / "linked", 12) == 14
    assert files_of(tmp_path / "linked") == files_of(tmp_path / "small")
    with pytest.raises(UserError, match="holds 26 files, not 27"):
        link_smaller(tmp_path / "large", tmp_path / "more", 25)


def test_a_scripted_run_can_be_built_from(tmp_path, photographs):
    write_index(tmp_path / "index.parquet", index_images(photographs))
    write_scripted_run(tmp_path / "run", tmp_path / "index.parquet")
    summary = build(BuildConfig(images=photographs, runs=(tmp_path / "run",), out=tmp_path / "dataset"))
    assert summary.sets["scripted"].n_rows == 26
    assert summary.sets["scripted"].n_left_out == {"refused": 1}


@pytest.mark.parametrize("with_bytes", ["yes", "no"])
def test_imagefolder_writes_every_photograph_with_its_bytes_or_paths_alone(tmp_path, with_bytes):
    write_sample(tmp_path / "photographs", n_images=12, seed=0)
    words = [str(tmp_path / name) for name in ("photographs", "out", "cache")]
    run = run_measured([*rivals_command("imagefolder"), *words, with_bytes])
    assert json.loads(run.stdout)["n_images"] == 14
    assert run.peak_mb > 10
    rows = [row for file in (tmp_path / "out").iterdir() for row in pq.read_table(file).to_pylist()]
    found = [row["image"]["bytes"] for row in rows]
    expected = files_of(tmp_path / "photographs").values() if with_bytes == "yes" else [None] * 14
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_shares_of_the_pillow_loop_are_all_files_once(tmp_path):
    write_sample(tmp_path / "photographs", n_images=12, seed=0)
    done = [
        json.loads(run_measured([*rivals_command("pillow"), str(tmp_path / "photographs"), share]).stdout)
        for share in ("0/2", "1/2", "0/1")
    ]
    assert [each["n_images"] for each in done] == [7, 7, 14]
    assert all(each["cpu_s"] > 0 for each in done)


def test_a_command_that_fails_is_an_error_with_its_last_words():
    with pytest.raises(UserError, match=r"ended with exit code 3: the last words"):
        run_measured([sys.executable, "-c", "import sys; print('the last words', file=sys.stderr); sys.exit(3)"])


def test_the_exponent_is_the_power_of_n():
    assert exponent(100, 2.0, 400, 8.0) == pytest.approx(1)
    assert exponent(100, 2.0, 400, 32.0) == pytest.approx(2)
    assert exponent(100, 0.01, 400, 32.0) is None


def test_the_reason_why_the_index_is_not_three_times_as_fast_is_computed():
    reason = why_not(INDEX, 2)
    assert "not met, with 1.50" in reason
    assert "2 loops at once gave 1.75" in reason
    assert "the decoding of the loop is 80%, sha256 5%, and 15% the rest" in reason
    assert reason.endswith("that makes 2 × 0.80 × 0.90 = 1.44.")
    assert "met, with 3.20" in why_not({**INDEX, "ratios": {"index": 3.2}}, 4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_is_measured_and_what_was_measured_is_kept(tmp_path):
    config = BenchConfig(tmp_path / "build", (sys.executable, "-m", "annotate"), n_images=40, n_rounds=1)
    result = bench_build(config, "vl-dermnet bench build --out build --images 40", MACHINE, AT)
    assert read_json(tmp_path / "build.json") == result
    assert (tmp_path / "build.md").read_text() == as_markdown(result)
    ways = result["build"]["ways"]
    assert ways["build"]["mb_written"] > result["settings"]["n_bytes"] / 1e6 > ways["imagefolder_paths"]["mb_written"]
    assert ways["imagefolder"]["mb_written"] > 0.9 * result["settings"]["n_bytes"] / 1e6
    assert result["build"]["ratios"]["build_s"] == pytest.approx(
        ways["build"]["wall_s"] / ways["imagefolder"]["wall_s"]
    )
    assert all(value > 0 for value in result["index"]["images_per_s"].values())
    assert [each["n_files"] for each in result["audit"]["sizes"]] == [42, 82, 162]
    first, second = result["second_set"]["first"], result["second_set"]["second"]
    assert first["new_bytes"] > result["settings"]["n_bytes"]
    assert 40 * 200 < second["new_bytes"] < 0.2 * second["n_bytes"]  # the texts are in it, the photographs are not
    assert str(tmp_path) not in (tmp_path / "build.json").read_text()


def test_only_what_the_store_does_not_have_is_new(tmp_path):
    """Shards of noise, which nothing makes smaller: the same, one that grew, and a text that changed."""
    noise = random.Random(0)
    old, added = noise.randbytes(2_000_000), noise.randbytes(300_000)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, shard, text in ((first, old, "one set"), (second, old + added, "two sets")):
        folder.mkdir()
        (folder / "train.parquet").write_bytes(shard)
        (folder / "README.md").write_text(text)
        (folder / "same.txt").write_text("as before")
    words = [sys.executable, "-m", "builders.bench.second_set", *map(str, (tmp_path / "store", first, second))]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_XET_CACHE": str(tmp_path / "home" / "xet")}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    one, two = json.loads(done.stdout)
    assert one["n_bytes"] == len(old) + len("one set" + "as before")
    assert one["n_bytes"] <= one["new_bytes"] < one["n_bytes"] + 20_000  # and the list of chunks
    assert two["n_bytes"] == len(old + added) + len("two sets" + "as before")
    assert len(added) <= two["new_bytes"] < len(added) + 200_000  # and the last chunk, which grew


def rivals_command(name):
    return [sys.executable, "-m", rivals.__name__, name]
