"""annotate: engines that fail in every way spoil no other row."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import wait

import pytest

from annotate.asks import Asking
from annotate.engines import Answer, EngineConfig
from annotate.job import run
from annotate.models import Model
from annotate.runners import Order, Settings, Stop, load_runner
from annotate.sessions import read_sessions
from builders.errors import UserError
from builders.index import index_images
from builders.run_folder import part_files
from tests.supervised import (
    DEADLY,
    N_PHOTOS,
    TEXT,
    WAYS,
    Told,
    asks_about,
    by_key,
    calm_text,
    check_rows,
    config,
    decoders_of,
    engines_of,
    make_photos,
    rows_on_disk,
    wait_until,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), N_PHOTOS)


@pytest.fixture(scope="module")
def keys(photos):
    """sha256 of every image, in the order in which they are asked about."""
    return [row.image_sha256 for row in index_images(photos, 0)]


def test_why_an_engine_failed_is_heard_though_it_says_so_between_two_looks(photos, keys, tmp_path, monkeypatch):
    def early(connections, timeout_s):
        ready = wait(connections, 0)
        time.sleep(0.2)  # within which an engine fails, says why and is gone
        return ready

    monkeypatch.setattr("annotate.runners.local.wait", early)
    script = {keys[0]: {"raise": "boom"}}
    summary = run(config(photos, tmp_path / "run", script=script, retries=0))
    assert (summary.n_ok, summary.n_failed) == (N_PHOTOS - 1, 1)
    assert set(summary.restarts) == {"RuntimeError: boom"}


@pytest.mark.parametrize("data_parallel", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_engines_that_fail_in_every_way_spoil_no_other_row(photos, keys, tmp_path, data_parallel):
    run(config(photos, tmp_path / "calm"))
    ways_of = dict(zip(keys[1::2], WAYS, strict=True))
    script = {key: WAYS[way][0] for key, way in ways_of.items()}
    summary = run(config(photos, tmp_path / "run", script=script, data_parallel=data_parallel, timeout_s=1, retries=0))
    check_rows(tmp_path / "run", keys, ways_of)
    calm, found = by_key(tmp_path / "calm"), by_key(tmp_path / "run")
    assert all(found[key].description == calm[key].description for key in keys if key not in ways_of)

    assert (summary.n_ok, summary.n_failed, summary.n_described) == (N_PHOTOS - 9, 9, N_PHOTOS)
    assert summary.n_quarantined == len(DEADLY) == 7
    assert summary.n_restarts == sum(summary.restarts.values()) >= 2 * len(DEADLY)
    deaths = {WAYS[way][1].removeprefix("the engine died of it twice: ") for way in DEADLY}
    assert set(summary.restarts) == deaths
    (session,) = read_sessions(tmp_path / "run")
    assert (session.n_quarantined, session.n_restarts) == (summary.n_quarantined, summary.n_restarts)
    assert {restart["reason"] for restart in session.restarts} == deaths
    assert session.n_in_flight == 0
    assert 0 < session.engine_busy <= 1


@pytest.mark.slow
@pytest.mark.parametrize("data_parallel", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_fail_alone_beside_images_that_are_still_in_the_engine(photos, keys, tmp_path, way, data_parallel):
    victim = keys[N_PHOTOS // 2]
    script = {victim: WAYS[way][0], "": {"text": TEXT, "late": True}}
    summary = run(config(photos, tmp_path / "run", script=script, data_parallel=data_parallel, timeout_s=1, retries=0))
    found = by_key(tmp_path / "run")
    assert all(found[key].description == calm_text(key) for key in keys if key != victim)
    assert found[victim].reason == WAYS[way][1]
    assert summary.n_quarantined == (way in DEADLY)
    assert summary.n_restarts <= 1 + 5  # 24 suspects, halved until one is alone


def test_an_image_that_kills_is_found_among_all_that_were_in_the_engine(photos, keys, tmp_path):
    victim = keys[-1]
    script = {victim: {"kill": True}, "": {"text": TEXT, "late": True}}
    summary = run(config(photos, tmp_path / "run", script=script))
    check_rows(tmp_path / "run", keys, {victim: "SIGKILL"})
    assert (summary.n_quarantined, summary.n_ok) == (1, N_PHOTOS - 1)
    (session,) = read_sessions(tmp_path / "run")
    sizes = [restart["n_in_engine"] for restart in session.restarts]
    assert sizes[0] == N_PHOTOS
    assert sizes[-1] == 1
    assert all(later <= (earlier + 1) // 2 for earlier, later in pairwise(sizes))


def test_one_death_costs_no_row(photos, keys, tmp_path):
    script = {keys[7]: {"text": TEXT, "kill_once": str(tmp_path / "died")}}
    summary = run(config(photos, tmp_path / "run", script=script))
    check_rows(tmp_path / "run", keys, {})
    assert (summary.n_failed, summary.n_quarantined, summary.restarts) == (0, 0, {"killed by SIGKILL": 1})


def test_an_engine_whose_own_process_is_killed_is_noticed_at_once(photos, keys, tmp_path):
    script = {keys[7]: {"text": TEXT, "kill_core": str(tmp_path / "died")}}
    summary = run(config(photos, tmp_path / "run", script=script, timeout_s=200))
    check_rows(tmp_path / "run", keys, {})
    told = {"EngineCoreEndedError: core was killed by SIGKILL": 1}
    assert (summary.n_failed, summary.n_quarantined, summary.restarts) == (0, 0, told)
    assert summary.wall_s < 100


def test_what_was_quarantined_is_asked_again_by_the_next_run(photos, keys, tmp_path):
    assert run(config(photos, tmp_path / "run", script={keys[5]: {"exit": 3}})).n_failed == 1
    (tmp_path / "script.json").write_text("{}")
    summary = run(config(photos, tmp_path / "run", engine_args={"script": str(tmp_path / "script.json")}))
    assert (summary.n_ok, summary.n_failed, summary.n_described) == (N_PHOTOS, 0, 1)
    assert (by_key(tmp_path / "run")[keys[5]].description, summary.n_sessions) == (calm_text(keys[5]), 2)


def test_two_deaths_for_want_of_memory_make_the_engines_smaller(photos, keys, tmp_path):
    told = Told()
    script = {keys[9]: {"raise": "memory"}}
    summary = run(config(photos, tmp_path / "run", script=script, max_in_flight=8), progress=told)
    check_rows(tmp_path / "run", keys, {keys[9]: "out of memory"})
    assert summary.restarts == {"MemoryError: memory (out of memory)": 2}
    assert "2 engines died for want of memory: from now on 4 images at once, not 8" in told.messages
    (session,) = read_sessions(tmp_path / "run")
    assert session.max_in_flight == 4


def test_an_engine_that_is_killed_while_it_starts_is_one_clear_error_and_nothing_is_written(photos, tmp_path):
    def kill_the_engine():
        wait_until(lambda: engines_of(os.getpid()), "an engine")
        os.kill(engines_of(os.getpid())[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_engine)
    killer.start()
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", engine_args={"start_seconds": 60}))
    killer.join()
    assert str(caught.value) == (
        f"the engine does not start: killed by SIGKILL\n\n  fix: read {tmp_path / 'run' / 'logs'}"
    )
    assert part_files(tmp_path / "run") == []
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


@contextmanager
def local_runner(photos, logs, timeout_s=60.0, seed=0, **engine_args):
    engine = EngineConfig(Model("scripted", "", "none", "none"), "a prompt", max_tokens=8, engine_args=engine_args)
    order = Order("scripted", engine, Asking(str(photos), 0.0, seed), n_workers=0)
    runner = load_runner("local", order, Settings(1, 1, timeout_s, logs), lambda message: None, Stop())
    try:
        yield runner
    finally:
        runner.kill()


def test_a_mistake_that_only_the_engine_can_see_is_told_as_it_told_it(photos, tmp_path):
    with local_runner(photos, tmp_path, script=str(tmp_path / "absent.json")) as runner:
        with pytest.raises(UserError) as caught:
            list(runner.describe(asks_about(photos)))
        assert str(caught.value).startswith(f"cannot read the script {tmp_path}/absent.json of the scripted engine: ")
        assert runner.report.restarts == []


def test_an_engine_that_ends_before_it_takes_an_image_is_not_started_for_ever(photos, tmp_path):
    with local_runner(photos, tmp_path, seed=None) as runner:  # no request can be made of it: a fault in our own code
        with pytest.raises(UserError, match="the engine ends before it takes an image: TypeError: unsupported operand"):
            list(runner.describe(asks_about(photos)))
        assert len(runner.report.restarts) == 2


@pytest.mark.slow
def test_a_decoding_process_that_stands_still_does_not_hold_the_run_for_ever(photos, keys, tmp_path):
    def stop_the_decoder():
        wait_until(lambda: decoders_of(os.getpid()), "a decoding process")
        os.kill(decoders_of(os.getpid())[0], signal.SIGSTOP)

    stopper = threading.Thread(target=stop_the_decoder)
    stopper.start()
    summary = run(config(photos, tmp_path / "run", n_workers=1, timeout_s=8, engine_args={"start_seconds": 1}))
    stopper.join()
    check_rows(tmp_path / "run", keys, {})
    assert list(summary.restarts) == ["no answer for 8 s (--timeout)"]


def test_a_runner_may_be_asked_again_after_an_engine_died_between_two_passes(photos, keys, tmp_path):
    with local_runner(photos, tmp_path) as runner:
        asks = asks_about(photos)
        first = [said for said in runner.describe(asks[:3]) if isinstance(said, Answer)]
        (engine,) = engines_of(os.getpid())
        os.kill(engine, signal.SIGKILL)
        second = [said for said in runner.describe(asks[3:]) if isinstance(said, Answer)]
        assert [answer.key for answer in first] + sorted(answer.key for answer in second) == [
            *keys[:3],
            *sorted(keys[3:]),
        ]
        runner.close()
    assert [restart.reason for restart in runner.report.restarts] == ["killed by SIGKILL"]


@pytest.mark.slow
@pytest.mark.parametrize("preflight", [True, False])
def test_an_engine_that_dies_of_every_image_stops_with_the_reason(photos, tmp_path, preflight):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", script={"": {"exit": 9}}, preflight=preflight))
    reason = (
        "the first 4 images all failed: the engine died of it twice: ended with exit code 9"
        if preflight
        else "the engine died of 5 images one after the other and answered none: ended with exit code 9"
    )
    assert str(caught.value).startswith(reason)
    assert [row["status"] for row in rows_on_disk(tmp_path / "run")] == ([] if preflight else ["failed"] * 5)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not engines_of(os.getpid())
