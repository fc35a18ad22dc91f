"""annotate --runner ray: the rows of a calm run on one machine, whatever dies. With the scripted engine."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.runners import Stop
from builders.errors import UserError
from builders.files import read_json
from builders.index import index_images
from builders.run_folder import part_files, read_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray"),
    # Ray Data warns of its own deprecated settings each time that it makes its context.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\.context"),
]


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch):
    """A folder of Ray's own for each test: a cluster that is started leaves its address there, and `ray.init` of a test
    beside it in another process would join that cluster. Short, because Ray's sockets lie in it."""
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_ANNOTATE_RAY", str(tmp_path))  # engines inherit it
    root = tmp_path / "photos"
    for seed in range(60):
        path = root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def config(photos, out, script=None, **changes):
    engine_args = dict(changes.pop("engine_args", {}))
    if script is not None:
        file = out.parent / "script.json"
        file.write_text(json.dumps(script))
        engine_args["script"] = str(file)
    settings = {
        "images": str(photos),
        "out": out,
        "engine": "scripted",
        "engine_args": engine_args,
        "runner": "ray",
        "data_parallel": 2,
        "n_workers": 0,
    }
    return AnnotateConfig(**{**settings, **changes})


def keys_of(photos):
    return sorted(row.image_sha256 for row in index_images(photos))


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def texts_of(out):
    return {key: (row.description, row.reason) for key, row in read_run(out).descriptions.items()}


def actors_of(out):
    """The pids of the Ray actors of a run: each has a folder of logs, named by its machine and its pid."""
    return [int(folder.name.rpartition("-")[2]) for folder in sorted((out / "logs").iterdir())]


def engines_of(root):
    """The pids of the engines that runs of this test have left."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and f"TEST_ANNOTATE_RAY={root}\0".encode() in (folder / "environ").read_bytes():
                found += [int(folder.name)] * (b"runners.engine_process" in (folder / "cmdline").read_bytes())
    return found


def assert_no_engine_is_left(root):
    deadline = time.monotonic() + 10
    while left := engines_of(root):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


@contextmanager
def while_it_runs(settings, n_rows, act):
    """Do `act()` in a thread as soon as the run with these settings has written so many rows."""

    def wait():
        while len(rows_on_disk(settings.out)) < n_rows:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_ray_run_is_the_same_run_and_a_local_one_continues_it(photos, tmp_path, capfd):
    run(config(photos, tmp_path / "local", runner="local", data_parallel=1))
    summary = run(config(photos, tmp_path / "ray", n_workers=1))
    assert (summary.n_described, summary.n_ok, summary.n_restarts) == (60, 60, 0)
    assert texts_of(tmp_path / "ray") == texts_of(tmp_path / "local")
    (ray, local) = (read_json(tmp_path / name / "run.json") for name in ("ray", "local"))
    assert ray["fingerprint"] == local["fingerprint"]
    assert run(config(photos, tmp_path / "ray", runner="local")).n_described == 0
    assert_no_engine_is_left(tmp_path)
    assert capfd.readouterr().out == ""


def test_a_killed_worker_costs_no_row(photos, tmp_path, capfd):
    run(config(photos, tmp_path / "calm", runner="local"))
    settings = config(photos, tmp_path / "run", part_rows=1, engine_args={"seconds": 0.4})
    with while_it_runs(settings, 5, lambda: os.kill(actors_of(settings.out)[0], signal.SIGKILL)):
        summary = run(settings)
    rows = rows_on_disk(settings.out)
    assert len(rows) == len({row["image_id"] for row in rows}) == 60
    assert texts_of(settings.out) == texts_of(tmp_path / "calm")
    assert summary.restarts == {"its Ray worker died": 1}
    assert_no_engine_is_left(tmp_path)
    assert capfd.readouterr().out == ""


def test_what_kills_an_engine_is_quarantined_alone_and_what_is_flagged_is_asked_again(photos, tmp_path):
    flagged, deadly, once, stuck = (keys_of(photos)[place] for place in (3, 7, 20, 40))
    script = {
        flagged: {"texts": ["", "better"]},
        deadly: {"kill": True},
        once: {"kill_once": str(tmp_path / "killed"), "text": "alive"},
        stuck: {"hang": True},
        "": {"text": "{key}"},
    }
    summary = run(config(photos, tmp_path / "run", script, timeout_s=2))
    assert (summary.n_ok, summary.n_failed, summary.n_quarantined) == (58, 2, 2)
    assert (summary.n_retried, summary.n_mended) == (1, 1)
    assert summary.n_restarts >= 5
    texts = {row.image_sha256: row for row in read_run(tmp_path / "run").descriptions.values()}
    assert texts[deadly].reason == "the engine died of it twice: killed by SIGKILL"
    assert texts[stuck].status == "failed"
    assert (texts[once].description, texts[flagged].description) == ("alive", "better")


def test_a_wish_to_stop_ends_the_run_and_the_next_one_asks_for_the_rest(photos, tmp_path):
    stop, settings = Stop(), config(photos, tmp_path / "run", part_rows=1, engine_args={"seconds": 0.1})
    with while_it_runs(settings, 5, lambda: setattr(stop, "is_requested", True)), pytest.raises(KeyboardInterrupt):
        run(settings, stop=stop)
    assert_no_engine_is_left(tmp_path)
    n_rows = len(rows_on_disk(settings.out))
    assert 5 <= n_rows < 60
    assert run(settings).n_described == 60 - n_rows


def test_a_lost_node_costs_no_row(photos, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        settings = config(photos, tmp_path / "run", part_rows=1, engine_args={"seconds": 0.1})
        with while_it_runs(settings, 5, lambda: cluster.remove_node(node, allow_graceful=False)):
            summary = run(settings)
    finally:
        cluster.shutdown()
    rows = rows_on_disk(settings.out)
    assert len(rows) == len({row["image_id"] for row in rows}) == summary.n_ok == 60


def test_an_engine_that_dies_of_everything_ends_the_run(photos, tmp_path):
    with pytest.raises(UserError, match=r"^the engine died of 5 images one after the other and answered none: killed"):
        run(config(photos, tmp_path / "run", {"": {"kill": True}}, preflight=False))
    assert_no_engine_is_left(tmp_path)


def test_more_engines_than_fit_are_refused(photos, tmp_path):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", data_parallel=999))
    n_cores = str(caught.value).rpartition(" ")[2]
    assert n_cores.isdigit()
    assert str(caught.value) == (
        "--data-parallel 999 with 1 CPU each does not fit into the Ray cluster, whose nodes have"
        f" {n_cores}\n  fix: --data-parallel {n_cores}"
    )
