"""Photographs and datasets on the Hub come over Xet: where its store fails for good, that is what is told."""

import io
import random
import subprocess
import sys
import zipfile

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image

from builders.publish.job import publish
from tests.hub_server import CUT, DROP
from tests.hub_server.client import ME, environment
from tests.publishing import wish

ADDRESS = "hf://datasets/me/photographs"


@pytest.fixture
def photographs_on_hub(hub):
    """Two photographs of noise in a zip, which the Hub keeps in Xet's store."""
    noise, archive = random.Random(0), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as entries:
        for label in ("papule", "plaque"):
            picture = io.BytesIO()
            Image.frombytes("RGB", (64, 64), noise.randbytes(64 * 64 * 3)).save(picture, "PNG")
            entries.writestr(f"train/{label}/a.png", picture.getvalue())
    api = HfApi(token=ME)
    api.create_repo("me/photographs", repo_type="dataset", private=True)
    files = [CommitOperationAdd("photographs.zip", archive.getvalue())]
    api.create_commit("me/photographs", files, commit_message="photographs", repo_type="dataset")
    return hub


def on_another_machine(hub, tmp_path, *words):
    """A command of ours on a machine whose caches are empty at first."""
    command = [sys.executable, "-m", "annotate", *words]
    machine = environment(hub, tmp_path / "another-machine")
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False, timeout=200)


def index(hub, tmp_path):
    return on_another_machine(hub, tmp_path, "index", ADDRESS, "--out", str(tmp_path / "index.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("route", ["reconstruction", "xorb-get"])
@pytest.mark.parametrize("what", [500, DROP, CUT])
def test_a_store_that_fails_for_good_is_told_and_the_next_command_goes_on(photographs_on_hub, tmp_path, route, what):
    photographs_on_hub.fail(route, what, times=1000)
    failed = index(photographs_on_hub, tmp_path)
    assert photographs_on_hub.faults.pop().n_hits > 0
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert f"error: cannot get {ADDRESS}" in failed.stderr
    assert "fix: type the same command again" in failed.stderr
    assert ME not in failed.stdout + failed.stderr
    assert not (tmp_path / "index.parquet").exists()
    assert index(photographs_on_hub, tmp_path).returncode == 0
    assert (tmp_path / "index.parquet").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("route", "what"), [("reconstruction", 500), ("xorb-get", CUT)])
def test_a_dataset_whose_shards_do_not_come_is_told_and_the_next_command_goes_on(
    hub, make_dataset, tmp_path, route, what
):
    publish(wish(make_dataset("old", "new")))
    hub.fail(route, what, times=1000)
    words = ("compare", "me/set", "old", "new")
    failed = on_another_machine(hub, tmp_path, *words)
    assert hub.faults.pop().n_hits > 0
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "error: cannot get me/set" in failed.stderr
    assert "fix: try again" in failed.stderr
    assert ME not in failed.stdout + failed.stderr
    done = on_another_machine(hub, tmp_path, *words)
    assert done.returncode == 0, done.stderr
