"""annotate --shard: the shares of a job array, one after the other, at the same time, and in other numbers."""

import errno
import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.parts import PartWriter
from annotate.run_lock import alone, in_turn, is_held, is_under_way
from annotate.runners import Stop
from annotate.sessions import read_sessions
from annotate.shard import Shard, parse_shard
from annotate.status import status_of
from builders.errors import UserError
from builders.files import read_json
from builders.run_folder import part_files, read_run

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)
N_PHOTOS, N_COPIES = 24, 3
THIRDS = ("0/3", "1/3", "2/3")


@pytest.fixture
def photos(tmp_path):
    """24 photographs, three of them twice, and a file that is none."""
    root = tmp_path / "photos"
    for seed in range(N_PHOTOS):
        path = root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "test" / "plaque").mkdir(parents=True)
    for seed in range(N_COPIES):
        shutil.copy(root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed:03d}.png", root / "test" / "plaque")
    (root / "test" / "plaque" / "broken.png").write_text("no image")
    return root


def config(photos, out, **changes):
    settings = {"images": str(photos), "out": out, "engine": "scripted", "n_workers": 0}
    return AnnotateConfig(**{**settings, **changes})


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def check_that_the_union_is_whole(out):
    """Every file has one row, copies have the text of their image, and no image is in the parts of two shards."""
    found = read_run(out)
    rows = rows_on_disk(out)
    assert len(rows) == len({row["image_id"] for row in rows}) == len(found.index) == N_PHOTOS + N_COPIES + 1
    for row in found.index:
        described = found.descriptions[row.image_id]
        assert described.status == row.status
        text = f"A scripted answer about image {row.image_sha256[:8]}." if row.status == "ok" else ""
        assert described.description == text
    folders = {}
    for part in part_files(out):
        for row in pq.read_table(part).to_pylist():
            folders.setdefault(row["image_sha256"], set()).add(part.parent)
    assert all(len(each) == 1 for each in folders.values())
    assert read_json(out / "summary.json")["n_images"] == N_PHOTOS + N_COPIES + 1


def run_until(n_rows, settings):
    """Run, and ask to stop when so many rows are on disk."""
    stop = Stop()

    def ask_to_stop():
        while len(rows_on_disk(settings.out)) < n_rows:
            time.sleep(0.01)
        stop.is_requested = True

    asker = threading.Thread(target=ask_to_stop)
    asker.start()
    with pytest.raises(KeyboardInterrupt):
        run(settings, stop=stop)
    asker.join()


def test_shards_one_after_the_other_make_one_whole_run(photos, tmp_path):
    out, summaries = tmp_path / "run", []
    for shard in THIRDS:
        assert not (out / "summary.json").exists()
        summaries.append(run(config(photos, out, shard=shard)))
        assert status_of(out).state == ("finished" if shard == "2/3" else "stopped")
    check_that_the_union_is_whole(out)
    assert sum(summary.n_described for summary in summaries) == N_PHOTOS
    assert sum(summary.n_images for summary in summaries) == N_PHOTOS + N_COPIES + 1
    assert sum(summary.n_refused for summary in summaries) == 1
    assert all(summary.n_described > 0 for summary in summaries)
    assert [session.shard for session in read_sessions(out)] == ["shard 0/3", "shard 1/3", "shard 2/3"]
    assert run(config(photos, out)).n_described == 0  # nothing is left for a run without --shard
    check_that_the_union_is_whole(out)


@pytest.mark.slow
def test_shards_at_the_same_time_make_one_whole_run(photos, tmp_path):
    out = tmp_path / "run"
    processes = [
        subprocess.Popen([sys.executable, "-c", RUN, config(photos, out, shard=shard).model_dump_json()])
        for shard in THIRDS
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    check_that_the_union_is_whole(out)
    assert sum(session.n_described for session in read_sessions(out)) == N_PHOTOS
    assert not [path for path in out.rglob(".*") if not path.name.startswith(".lock")]


def test_another_number_of_shards_goes_on_where_the_first_one_was_stopped(photos, tmp_path):
    out = tmp_path / "run"
    slow = {"seconds": 0.1}
    run_until(5, config(photos, out, shard="0/2", part_rows=1, engine_args=slow))
    before = {row["image_sha256"] for row in rows_on_disk(out) if row["status"] == "ok"}
    n_described = [run(config(photos, out, shard=shard, engine_args=slow)).n_described for shard in THIRDS]
    assert sum(n_described) == N_PHOTOS - len(before) < N_PHOTOS
    check_that_the_union_is_whole(out)


@pytest.mark.parametrize(
    ("holder", "asker", "who"),
    [
        ("0/3", "0/3", "another annotate process for shard 0/3"),
        ("0/3", None, "another annotate process"),
        (None, "0/3", "another annotate process"),
        (None, None, "another annotate process"),
    ],
)
def test_what_another_process_works_on_is_refused(photos, tmp_path, holder, asker, who):
    out = tmp_path / "run"
    with alone(out, parse_shard(holder)), pytest.raises(UserError) as caught:
        run(config(photos, out, shard=asker))
    assert str(caught.value) == f"{out} is in use by {who}\n  fix: wait for it, or use another --out"
    assert part_files(out) == []


def test_another_shard_may_work_beside_one(photos, tmp_path):
    with alone(tmp_path / "run", Shard(0, 3)):
        assert run(config(photos, tmp_path / "run", shard="1/3")).n_failed == 0


def test_another_number_of_shards_at_the_same_time_is_refused(photos, tmp_path):
    with alone(tmp_path / "run", parse_shard("0/3")), pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", shard="1/2"))
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is in use by shards of 3, and shard 1/2 is one of 2\n"
        "  fix: wait for them, then any number will do; or beside them: --shard I/3"
    )
    run(config(photos, tmp_path / "run", shard="1/2"))  # afterwards any number will do


@pytest.mark.parametrize("text", ["", "3", "3/3", "4/3", "-1/3", "0/0", "a/b", "1/2/3", " 0/3", "0/3\n", "0.5/3"])
def test_a_shard_that_cannot_be_is_refused(photos, tmp_path, text):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", shard=text))
    assert str(caught.value) == f"--shard '{text}' is not I/N with I from 0 to N-1\n  fix: --shard 0/8"
    assert not (tmp_path / "run").exists()


@given(sha=st.binary(min_size=32, max_size=32) | st.just(b""), n_shards=st.integers(1, 1000))
def test_every_image_is_in_exactly_one_shard(sha, n_shards):
    assert sum(Shard(number, n_shards).has(sha.hex()) for number in range(n_shards)) == 1


def test_status_counts_what_the_engines_hold_only_of_shards_that_are_under_way(photos, tmp_path):
    out = tmp_path / "run"
    for shard in ("0/2", "1/2"):
        run(config(photos, out, shard=shard))
    for file in (out / "sessions").iterdir():  # as if both had been killed
        session = read_json(file)
        file.write_text(json.dumps({**session, "n_in_flight": 3, "engine_busy": 0.5 if "0/2" in file.name else 0.25}))
    assert status_of(out).n_in_flight == 0
    with alone(out, Shard(0, 2)):
        assert status_of(out).n_in_flight == 3
        with alone(out, Shard(1, 2)):
            assert status_of(out).n_in_flight == 6
    with alone(out, Shard(0, 5)):
        assert status_of(out).n_in_flight == 3  # none of its own yet: the last one's


def test_whoever_comes_first_removes_half_written_files(photos, tmp_path):
    out = tmp_path / "run"
    run(config(photos, out, shard="0/2"))
    leftovers = [
        out / ".index.parquet.1234.part",
        out / "sessions" / ".20260102T030405Z.json.1234.part",
        out / "parts" / "shard-1-of-2" / ".part-000000.parquet.1234.part",
    ]
    for leftover in leftovers:
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_bytes(b"PAR1")
    with alone(out, Shard(1, 2)):  # beside others nobody knows whose they are
        run(config(photos, out, shard="0/2"))
        (out / ".run.json.99.part").touch()
        run(config(photos, out, shard="0/2"))
        assert (out / ".run.json.99.part").exists()
    run(config(photos, out))
    assert not list(out.rglob(".*.part"))
    check_that_the_union_is_whole(out)


def test_what_other_programs_are_writing_below_the_run_folder_stays(tmp_path):
    foreign = [
        tmp_path / ".movie.mkv.part",
        tmp_path / ".run.json.part",
        tmp_path / "parts" / ".movie.mkv.1234.part",
        tmp_path / "runs" / "other" / ".run.json.1234.part",
        tmp_path / "runs" / "other" / "parts" / ".part-000001.parquet.1234.part",
    ]
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("somebody writes this now")
    with alone(tmp_path, None), PartWriter(tmp_path, part_rows=1, part_seconds=1):
        pass
    assert all(file.exists() for file in foreign)


def test_a_shard_waits_for_the_first_one_to_clean_up(tmp_path):
    is_first, entered = threading.Event(), []

    def clean_up():
        with in_turn(tmp_path, "start"), (tmp_path / ".lock").open("a+") as whole:
            fcntl.flock(whole, fcntl.LOCK_EX)
            is_first.set()
            time.sleep(1.5)
            fcntl.flock(whole, fcntl.LOCK_SH)

    first = threading.Thread(target=clean_up)
    first.start()
    is_first.wait()
    with alone(tmp_path, Shard(1, 8)):
        entered.append(True)
    first.join()
    assert entered


def test_locks_are_open_for_reading_and_for_writing_as_nfs_wants_them(tmp_path, monkeypatch):
    flock = fcntl.flock

    def flock_of_nfs(file, how):
        """Emulated by fcntl, which gives no shared lock on what cannot be read, no exclusive one on what cannot be
        written: https://man7.org/linux/man-pages/man2/flock.2.html"""
        needs = file.readable() if how & fcntl.LOCK_SH else file.writable()
        if not needs:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    with alone(tmp_path, Shard(0, 2)), alone(tmp_path, Shard(1, 2)):
        assert is_held(tmp_path)
        assert is_under_way(tmp_path, Shard(0, 2))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a run folder that may only be read
    assert not is_held(tmp_path)
