"""Photographs on the Hub come over Xet: where its store fails for good, it is told as that, and no image is blamed."""

import io
import random
import subprocess
import sys
import zipfile

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image

from tests.hub_server import CUT, DROP
from tests.hub_server.client import ME, environment

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


def index(hub, tmp_path):
    command = [sys.executable, "-m", "annotate", "index", ADDRESS, "--out", str(tmp_path / "index.parquet")]
    machine = environment(hub, tmp_path / "another-machine")
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False, timeout=200)


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
