"""annotate: engines that fail in every way, runs that are stopped, first answers that are wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotate.asks import Ask, Asking
from annotate.config import AnnotateConfig
from annotate.engines import Answer, EngineConfig
from annotate.job import run
from annotate.models import Model
from annotate.progress import Progress
from annotate.runners import Order, Settings, Stop, load_runner
from annotate.sessions import read_sessions
from annotate.status import status_of
from builders.errors import UserError
from builders.index import index_images
from builders.run_folder import part_files, read_run

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)
TEXT = "A scripted answer about image {key}."
N_PHOTOS = 24
HUNG = "the engine died of it twice: no answer for 1 s (--timeout)"
# What the script says of an image, and the reason that its row then gives; "" where it is answered all the same.
WAYS = {
    "exception": ({"raise": "boom"}, "the engine died of it twice: RuntimeError: boom"),
    "exception in odd words": ({"raise": "\ud800"}, "the engine died of it twice: RuntimeError: \\ud800"),
    "out of memory": ({"raise": "memory"}, "the engine died of it twice: MemoryError: memory (out of memory)"),
    "SIGKILL": ({"kill": True}, "the engine died of it twice: killed by SIGKILL"),
    "exit code": ({"exit": 7}, "the engine died of it twice: ended with exit code 7"),
    "hang": ({"hang": True}, HUNG),
    "no answer": ({"silent": True}, HUNG),
    "error": ({"error": "out of luck"}, "out of luck"),
    "odd text": ({"text": "\ud800"}, "the engine's text is not Unicode: surrogates not allowed"),
    "empty text": ({"text": ""}, ""),
    "two answers": ({"text": TEXT, "twice": True}, ""),
    "wrong order": ({"text": TEXT, "late": True}, ""),
}
DEADLY = [way for way, (_, reason) in WAYS.items() if reason.startswith("the engine died")]


class Told(Progress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(is_silent=True)
        self.messages = []

    def say(self, message):
        self.messages.append(message)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), N_PHOTOS)


def make_photos(root, n_photos):
    for seed in range(n_photos):
        path = root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def keys(photos):
    """sha256 of every image, in the order in which they are asked about."""
    return [row.image_sha256 for row in index_images(photos, 0)]


def config(photos, out, script=None, **changes):
    engine_args = dict(changes.pop("engine_args", {}))
    if script is not None:
        file = out.parent / "script.json"
        file.write_text(json.dumps(script))
        engine_args["script"] = str(file)
    settings = {"images": str(photos), "out": out, "engine": "scripted", "engine_args": engine_args, "n_workers": 0}
    return AnnotateConfig(**{**settings, **changes})


def command(photos, out, *options):
    return [
        sys.executable,
        "-m",
        "annotate",
        "annotate",
        str(photos),
        "--out",
        str(out),
        "--engine",
        "scripted",
        *options,
    ]


def by_key(out):
    return {row.image_sha256: row for row in read_run(out).descriptions.values()}


def calm_text(key):
    return TEXT.replace("{key}", key[:8])


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def children_of(pid):
    """Processes whose parent is `pid`, by https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def engines_of(pid):
    """Its children that run an engine."""
    found = []
    for child in children_of(pid):
        with suppress(OSError):
            if b"engine_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def decoders_of(pid):
    """The processes that decode for its engines."""
    found = []
    for child in (each for engine in engines_of(pid) for each in children_of(engine)):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def family_of(pid):
    """Its children, and theirs."""
    children = children_of(pid)
    return children + [each for child in children for each in family_of(child)]


def wait_until(is_true, what):
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)


def wait_for_end(pids):
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), f"the end of {pids}")


def check_rows(out, keys, ways_of):
    """Every image has one row; those of `ways_of` (key -> way) as `WAYS` says, all others as in a calm run."""
    rows = rows_on_disk(out)
    assert len(rows) == len({row["image_id"] for row in rows}) == len(keys)
    found = by_key(out)
    for key in keys:
        entry, reason = WAYS[ways_of[key]] if key in ways_of else ({}, "")
        text = "" if reason else entry.get("text", TEXT).replace("{key}", key[:8])
        status = "failed" if reason else "ok"
        assert (found[key].status, found[key].reason, found[key].description) == (status, reason, text)
        assert ("empty" in found[key].flags) == (status == "ok" and not text)


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


def asks_about(photos):
    return [Ask(row.image_sha256, row.path) for row in index_images(photos, 0)]


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"error": "no luck"}, "the first 4 images all failed: no luck"),
        (
            {"text": " \n", "finish_reason": "stop"},
            "the first 4 answers are empty (finish_reason stop); is the chat template the model's own?",
        ),
    ],
)
def test_first_answers_that_are_all_wrong_stop_the_run_before_a_row_is_written(photos, tmp_path, entry, message):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", script={"": entry}))
    assert str(caught.value) == f"{message}\n  fix: mend it, or let it go on as it is with --no-preflight"
    assert part_files(tmp_path / "run") == []
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not engines_of(os.getpid())

    mended = {"script": {"": entry}, "preflight": False, "max_tokens": 17}  # other settings: nothing was written yet
    summary = run(config(photos, tmp_path / "run", **mended))
    assert (summary.n_failed, summary.n_ok) == ((N_PHOTOS, 0) if "error" in entry else (0, N_PHOTOS))


def test_first_answers_that_are_all_cut_are_a_warning(photos, tmp_path):
    told = Told()
    script = {"": {"text": "A lesion of", "finish_reason": "length"}}
    summary = run(config(photos, tmp_path / "run", script=script, max_tokens=3), progress=told)
    assert "warning: all of them were cut at 3 tokens; --max-tokens gives them more" in told.messages
    assert summary.n_flagged == {"truncated": N_PHOTOS}


def test_the_first_answers_and_the_prompt_are_shown(photos, keys, tmp_path):
    told = Told()
    run(config(photos, tmp_path / "run", script={keys[1]: {"error": "no luck"}}, prompt="doctor"), progress=told)
    shown = [message for message in told.messages if message.startswith("first look: ")]
    assert shown[:2] == [
        f"first look: {keys[0][:8]}: 0 tokens in, 6 out, stop: {calm_text(keys[0])}",
        f"first look: {keys[1][:8]}: no luck",
    ]
    assert len(shown) == 4
    assert any(re.fullmatch(r"prompt, as scripted renders it \(sha256 [0-9a-f]{16}\):", told) for told in told.messages)


def test_a_run_that_holds_answers_is_never_stopped_by_its_first_new_ones(photos, keys, tmp_path):
    failing = {key: {"error": "no luck"} for key in keys[6:]}
    assert run(config(photos, tmp_path / "run", script=failing)).n_ok == 6
    summary = run(config(photos, tmp_path / "run", script=failing))
    assert (summary.n_ok, summary.n_failed) == (6, N_PHOTOS - 6)
    assert [session.n_to_do for session in read_sessions(tmp_path / "run")] == [N_PHOTOS, N_PHOTOS - 6]


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
    asked_at = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked_at < 8
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
    asked_at = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked_at < 5
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
    asked_at = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked_at < 8
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


def test_a_file_that_was_damaged_after_it_was_described_counts_as_refused(tmp_path):
    folder = make_photos(tmp_path / "photos", 6)
    run(config(folder, tmp_path / "run"))
    victim = folder / "train" / "papule" / "001.png"
    victim.write_bytes(b"no image")
    for n_rows in (7, 7):  # its second row counts, and is not written again
        summary = run(config(folder, tmp_path / "run"))
        assert (summary.n_ok, summary.n_refused, summary.n_failed) == (5, 1, 0)
        assert len(rows_on_disk(tmp_path / "run")) == n_rows
    (row,) = [row for row in read_run(tmp_path / "run").descriptions.values() if row.status == "refused"]
    assert (row.description, row.reason) == ("", "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF")
    victim.write_bytes(b"another file that is no image")
    run(config(folder, tmp_path / "run"))
    found = read_run(tmp_path / "run")
    assert all(found.descriptions[row.image_id].image_sha256 == row.image_sha256 for row in found.index)
    assert status_of(tmp_path / "run").n_refused == 1


def test_a_file_that_changed_and_then_failed_does_not_count_as_described(tmp_path):
    folder = make_photos(tmp_path / "photos", 6)
    run(config(folder, tmp_path / "run", script={}))
    victim = folder / "train" / "papule" / "001.png"
    Image.new("RGB", (9, 9), "red").save(victim)
    (key,) = [row.image_sha256 for row in index_images(folder, 0) if row.path.endswith("001.png")]
    summary = run(config(folder, tmp_path / "run", script={key: {"error": "no luck"}}))
    assert (summary.n_ok, summary.n_failed) == (5, 1)
    assert summary.reasons == {"no luck": 1}
    status = status_of(tmp_path / "run")
    assert (status.n_ok, status.n_to_do) == (5, 1)
    assert run(config(folder, tmp_path / "run", script={})).n_ok == 6
