"""annotate under SIGKILL at random moments: of its own process, of an engine, of a decoder, in a write."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.sessions import read_sessions
from annotate.status import status_of
from builders.files import read_json
from builders.run_folder import part_files, read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)
N_PHOTOS = 160
SECONDS = 0.03  # per image, so that a run lasts about five seconds
WAIT_S = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for seed in range(N_PHOTOS):
        path = root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def calm(photos, tmp_path_factory):
    """The texts of a run that nobody disturbs, by `image_id`."""
    out = tmp_path_factory.mktemp("calm") / "run"
    run(config(photos, out))
    return texts_of(out)


def config(photos, out, **changes):
    settings = {
        "images": str(photos),
        "out": out,
        "engine": "scripted",
        "engine_args": {"seconds": SECONDS},
        "n_workers": 2,
        "part_rows": 4,
    }
    return AnnotateConfig(**{**settings, **changes})


def texts_of(out):
    return {key: (row.status, row.reason, row.description) for key, row in read_run(out).descriptions.items()}


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def n_rows(out):
    return sum(pq.read_metadata(part).num_rows for part in part_files(out))


class Started:
    """A run in a process of its own. All that descends from it carries a mark, so that none can stay unseen."""

    def __init__(self, settings):
        self.mark = f"VL_DERMNET_TEST={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, settings.model_dump_json()], env={**os.environ, name: value}
        )

    def alive(self, words=""):
        """Its processes, those of them with these words in their command line."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                is_ours = folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes()
                if is_ours and words.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def engines(self):
        return self.alive("engine_process")

    def decoders(self):
        """Of the engines; while images are checked, of the run itself."""
        return self.alive("spawn_main")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def check_that_nothing_is_left(self):
        wait_until(lambda: not self.alive(), f"the end of {self.alive()}")


def wait_until(is_true, what):
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.005)


def kill_one_of(chance, pids):
    """SIGKILL for one of them, unless none is there or it was quicker; its pid."""
    with suppress(ProcessLookupError, IndexError):
        pid = chance.choice(pids)
        os.kill(pid, signal.SIGKILL)
        return pid
    return None


def check_that_it_is_as_calm(out, calm, n_failed=0):
    """One answer per image and no other row, but those that say of `n_failed` images that they failed before."""
    answered = [row["image_id"] for row in rows_on_disk(out) if row["status"] == "ok"]
    assert len(answered) == len(set(answered)) == N_PHOTOS == len(rows_on_disk(out)) - n_failed
    assert texts_of(out) == calm
    assert not [path for path in out.rglob(".*") if not path.name.startswith(".lock")]
    assert status_of(out).state == "finished"
    assert read_json(out / "summary.json")["n_ok"] == N_PHOTOS


def test_the_driver_is_killed_at_random_moments(photos, calm, tmp_path):
    chance, out, last = random.Random(1), tmp_path / "run", 0
    for _ in range(8):
        started = Started(config(photos, out, data_parallel=chance.choice([1, 2]), part_rows=chance.choice([1, 4, 32])))
        time.sleep(chance.uniform(0.2, 3.0))
        started.kill()
        started.check_that_nothing_is_left()
        assert last <= n_rows(out) <= N_PHOTOS
        last = n_rows(out)
        assert len({row["image_id"] for row in rows_on_disk(out)}) == last
    run(config(photos, out))
    check_that_it_is_as_calm(out, calm)


def test_the_driver_is_killed_while_it_writes(photos, calm, tmp_path):
    out, n_half_written, n_kills = tmp_path / "run", 0, 0
    parts = out / "parts"
    while n_half_written < 3:
        assert n_kills < 20, "no kill came in the middle of a write"
        started = Started(config(photos, out))
        n_before = n_rows(out)
        wait_until(lambda n_before=n_before: n_rows(out) > n_before, "a part")
        while not any(name.endswith(".part") for name in os.listdir(parts)):  # noqa: PTH208  # quicker than Path's
            assert started.process.poll() is None
        started.kill()
        started.check_that_nothing_is_left()
        n_kills += 1
        n_half_written += len(list(parts.glob(".*.part")))
        rows = rows_on_disk(out)  # what is there is whole
        assert len({row["image_id"] for row in rows}) == len(rows)
    run(config(photos, out))
    check_that_it_is_as_calm(out, calm)


@pytest.mark.parametrize("data_parallel", [1, 2])
def test_engines_are_killed_at_random_moments_and_the_run_goes_on(photos, calm, tmp_path, data_parallel):
    chance, out, killed = random.Random(data_parallel), tmp_path / "run", []
    started = Started(config(photos, out, data_parallel=data_parallel, part_rows=1))
    for _ in range(6):
        # An image is quarantined when two engines died of it: some rows later none is in its second engine.
        n_enough = n_rows(out) + 6
        wait_until(lambda n_enough=n_enough: n_rows(out) >= n_enough, "rows")
        time.sleep(chance.uniform(0, 0.2))
        killed += filter(None, [kill_one_of(chance, started.engines())])
        assert started.process.poll() is None
    assert started.process.wait() == 0
    started.check_that_nothing_is_left()
    check_that_it_is_as_calm(out, calm)
    (session,) = read_sessions(out)
    assert 4 <= session.n_restarts <= len(killed) == 6  # one that is killed when all is answered is not replaced
    assert {restart["reason"] for restart in session.restarts} == {"killed by SIGKILL"}
    assert session.n_quarantined == 0


@pytest.mark.parametrize("data_parallel", [1, 2])
def test_decoders_are_killed_at_random_moments_and_no_engine_dies_of_it(photos, calm, tmp_path, data_parallel):
    chance, out, killed = random.Random(10 + data_parallel), tmp_path / "run", []
    started = Started(config(photos, out, data_parallel=data_parallel, part_rows=1))
    wait_until(lambda: n_rows(out) > 0, "a row")
    for _ in range(6):
        killed += filter(None, [kill_one_of(chance, started.decoders())])
        n_enough = min(N_PHOTOS, n_rows(out) + 12)
        wait_until(lambda n_enough=n_enough: n_rows(out) >= n_enough, "rows")
        time.sleep(chance.uniform(0, 0.2))
    assert started.process.wait() == 0
    started.check_that_nothing_is_left()
    assert len(killed) >= 3
    (session,) = read_sessions(out)
    assert session.n_restarts == 0
    # Where all processes that were given one image were killed, it waits for the next run.
    failed = [row for row in read_run(out).descriptions.values() if row.status == "failed"]
    assert {row.reason for row in failed} <= {"the process that decoded it died"}
    assert len(failed) <= 2
    run(config(photos, out))
    check_that_it_is_as_calm(out, calm, n_failed=len(failed))


def test_everything_is_killed_by_turns(photos, calm, tmp_path):
    chance, out = random.Random(20), tmp_path / "run"
    for turn in range(6):
        started = Started(config(photos, out, data_parallel=1 + turn % 2))
        for pids in (started.decoders, started.engines):
            time.sleep(chance.uniform(0.8, 1.5))  # not before it is ready: that would be the end of the run
            if pids == started.decoders or (out / "parts").exists():
                kill_one_of(chance, pids())
        time.sleep(chance.uniform(0, 0.5))
        started.kill()
        started.check_that_nothing_is_left()
        rows = rows_on_disk(out)
        assert len({row["image_id"] for row in rows if row["status"] == "ok"}) == len(rows)
    run(config(photos, out))
    check_that_it_is_as_calm(out, calm)
