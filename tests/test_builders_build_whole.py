"""The dataset folder is whole-old or whole-new, and nothing in it that is somebody else's is lost."""

import json
import signal
import subprocess
import sys

import pytest

from builders.build import BuildConfig, build
from builders.errors import UserError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "dataset"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KILL_ME = """
import sys, time
from pathlib import Path
from builders.build import BuildConfig, build

def finish(folder):
    print("everything is written", flush=True)
    time.sleep(60)

images, run, out = map(Path, sys.argv[1:])
build(BuildConfig(images=images, runs=(run,), out=out), finish)
"""


def test_killed_before_the_swap_the_old_dataset_is_whole(photographs, make_run, out):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    before = contents(out)
    other = make_run("other")
    command = [sys.executable, "-c", KILL_ME, str(photographs), str(other), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout.readline() == "everything is written\n"
        builder.send_signal(signal.SIGKILL)
    assert contents(out) == before
    summary = build(BuildConfig(images=photographs, runs=(other,), out=out))
    assert summary.primary == "other"
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_failing_finish_leaves_the_old_dataset_whole(photographs, make_run, out):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    before = contents(out)

    def fail(folder):
        raise RuntimeError("no card today")

    with pytest.raises(RuntimeError, match="no card today"):
        build(BuildConfig(images=photographs, runs=(make_run("other"),), out=out), finish=fail)
    assert contents(out) == before


def test_a_folder_that_is_not_ours_is_left_alone(photographs, make_run, out):
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    assert str(error.value) == (
        f"{out} is not empty and not a dataset folder; it was left as it is\n  fix: choose another --out"
    )
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("line", [b"d41d8 *photo.jpg\n", b"\xff\n", b""])
def test_a_folder_with_checksums_of_somebody_else_is_left_alone(photographs, make_run, out, line):
    (out / "provenance").mkdir(parents=True)
    (out / "SHA256SUMS").write_bytes(line)
    with pytest.raises(UserError, match="is not empty and not a dataset folder; it was left as it is"):
        build(BuildConfig(images=photographs, runs=(make_run(),), out=out))
    assert (out / "SHA256SUMS").read_bytes() == line


def test_a_place_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    config = BuildConfig(images=tmp_path / "absent", runs=(tmp_path / "absent",), out=tmp_path / "file/dataset")
    with pytest.raises(UserError, match=r"^cannot write .*/file/dataset: .*/file is not a folder\n"):
        build(config)


def test_a_file_that_somebody_added_is_not_lost(photographs, make_run, out):
    config = BuildConfig(images=photographs, runs=(make_run(),), out=out)
    build(config)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError) as error:
        build(config)
    assert str(error.value) == (
        f"{out} holds 1 files that no build wrote, and would lose them: notes.txt\n"
        "  fix: move them away, or choose another --out"
    )


KILL_AT_RANDOM = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
from builders.build import BuildConfig, build
from dataset_card.card import write_card

images, first, second, out = map(Path, sys.argv[1:])

def build_of(run):
    child = os.fork()  # everything is imported: what is killed is the building
    if child == 0:
        build(BuildConfig(images=images, runs=(run,), out=out, with_images=True, shard_bytes=2000), write_card)
        os._exit(0)
    return child

def state():
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()

def wait(child):
    return os.waitpid(child, 0)[1]

whole = {}
for run in (second, first):
    start = time.monotonic()
    assert wait(build_of(run)) == 0
    whole[state()] = run.name
seconds, chance, seen = time.monotonic() - start, random.Random(4), []
for number in range(24):
    run = second if seen[-1:] in ([], ["run-first"]) else first
    child = build_of(run)
    time.sleep(seconds * chance.uniform(0, 1.2) if number % 2 else seconds * chance.uniform(0.9, 1.1))
    os.kill(child, signal.SIGKILL)
    was_killed = wait(child) == signal.SIGKILL
    seen.append(whole.get(state(), "neither"))
    print(json.dumps([seen[-1], run.name, was_killed]), flush=True)
assert wait(build_of(first)) == 0
print(json.dumps([whole.get(state(), "neither"), "run-first", False]))
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_dataset_is_whole_old_or_whole_new(photographs, make_run, out):
    runs = [make_run("first"), make_run("second")]
    command = [sys.executable, "-c", KILL_AT_RANDOM, str(photographs), *map(str, runs), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(state in ("run-first", "run-second") for state, _, _ in seen)
    assert all(state == run for state, run, was_killed in seen if not was_killed)
    assert sum(was_killed for _, _, was_killed in seen) >= 8
    assert seen[-1][0] == "run-first"
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
