"""annotate: a run that is asked to stop or is watched from outside."""

import json
import signal
import subprocess
import sys
import time

import pytest

from annotate.job import run
from annotate.sessions import read_sessions
from annotate.status import status_of
from builders.index import index_images
from tests.supervised import (
    N_PHOTOS,
    RUN,
    TEXT,
    check_rows,
    command,
    config,
    engines_of,
    family_of,
    make_photos,
    rows_on_disk,
    wait_for_end,
    wait_until,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), N_PHOTOS)


@pytest.fixture(scope="module")
def keys(photos):
    """sha256 of every image, in the order in which they are asked about."""
    return [row.image_sha256 for row in index_images(photos, 0)]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_that_is_asked_to_stop_writes_what_is_in_the_engine_and_can_go_on(photos, keys, tmp_path, number):
    late = {key: {"text": TEXT, "late": True} for key in keys[4:]}  # in the engine until no more come
    (tmp_path / "script.json").write_text(json.dumps(late))
    engine_args = {"script": str(tmp_path / "script.json"), "seconds": 0.1}
    options = [f"--engine-arg={name}={value}" for name, value in engine_args.items()]
    out = tmp_path / "run"
    process = subprocess.Popen(command(photos, out, *options, "--workers", "1"), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: read_sessions(out), "answers")
    time.sleep(0.8)
    family = family_of(process.pid)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    wait_for_end(family)
    n_written = len(rows_on_disk(out))
    assert 4 < n_written < N_PHOTOS
    assert "finishing what is in the engine, for some seconds; once more to stop at once" in told
    assert f"stopped with {n_written} of {N_PHOTOS} images described" in told
    assert f"interrupted; what was finished is in {out}. To go on, type the same command again." in told
    assert "Traceback" not in told
    assert status_of(out).state == "stopped"

    (tmp_path / "script.json").write_text("{}")
    again = run(config(photos, out, engine_args=engine_args))
    assert (again.n_described, again.n_sessions) == (N_PHOTOS - n_written, 2)
    check_rows(out, keys, {})


def test_asked_to_stop_a_second_time_it_ends_at_once(photos, keys, tmp_path):
    (tmp_path / "script.json").write_text(json.dumps({keys[6]: {"hang": True}}))
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(photos, out, "--engine-arg", f"script={tmp_path}/script.json", "--part-rows", "1", "--workers", "0"),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(rows_on_disk(out)) >= 5, "five rows")
    family = family_of(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for the image that hangs
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; what was finished is in" in told
    assert "Traceback" not in told
    wait_for_end(family)
    assert len(rows_on_disk(out)) == 6


def test_asked_to_stop_while_the_engine_starts_it_does_not_wait_for_it(photos, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(photos, out, "--engine-arg", "start_seconds=60"), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: engines_of(process.pid), "an engine")
    time.sleep(0.3)
    family = family_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"stopped with 0 of {N_PHOTOS} images described" in told
    wait_for_end(family)


@pytest.mark.slow
def test_status_tells_how_the_engines_do_while_they_run_and_after_a_kill(photos, keys, tmp_path):
    script = {keys[4]: {"text": TEXT, "kill_once": str(tmp_path / "died")}}
    out = tmp_path / "run"
    settings = config(photos, out, script=script, engine_args={"seconds": 0.2}, part_rows=1)
    process = subprocess.Popen([sys.executable, "-c", RUN, settings.model_dump_json()])
    try:
        wait_until(lambda: any(session.n_in_flight for session in read_sessions(out)), "something in flight")
        wait_until(lambda: status_of(out).n_restarts, "a restart")
        running = status_of(out)
    finally:
        family = family_of(process.pid)
        process.kill()
        process.wait()
    assert (running.state, running.n_in_flight, running.n_restarts) == ("running", 1, 1)
    assert running.last_restart == "killed by SIGKILL"
    assert 0 < running.engine_busy <= 1
    wait_for_end(family)
    killed = status_of(out)
    assert (killed.state, killed.n_in_flight, killed.n_restarts) == ("stopped", 0, 1)
    assert 0 < killed.engine_busy <= 1
    assert 0 < killed.n_to_do < N_PHOTOS
