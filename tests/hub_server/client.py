"""Point the stock clients to the server: those of this process, or of a child."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hub_server.server import HubServer

ME, ME_READING, YOU = "hf_write_of_me", "hf_read_of_me", "hf_write_of_you"
# Xet waits some seconds otherwise; what it tells of its speed would come between the calls that a test counts
_OF_XET = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "20ms", "HF_XET_TELEMETRY_ENABLED": "false"}


def connect(monkeypatch: pytest.MonkeyPatch, hub: HubServer, home: Path, token: str = ME) -> None:
    """Let `huggingface_hub` in this process go to `hub`, as `token`'s account; undone with the test.

    Once more with another `home`, it goes there as from a new machine, which knows nothing of earlier uploads.
    Its constants are read from the environment at import, long before any test. Xet reads it when a session starts.
    What fails is tried again at once: nobody waits as long as `huggingface_hub` would.
    """
    xet = importlib.import_module("huggingface_hub.utils._xet")  # there is no public way to end a session
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    impatient = SimpleNamespace(**vars(time) | {"sleep": lambda _: None})  # this module's own `time`, nobody else's
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(xet, "_GLOBAL_XET_HOLDER", xet.XetSessionHolder())
    monkeypatch.setattr(xet, "XET_CONNECTION_INFO_CACHE", {})  # else tokens of a server that had this port before
    for name, value in {"HF_HOME": str(home), "HF_XET_CACHE": str(home / "xet"), **_OF_XET}.items():
        monkeypatch.setenv(name, value)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))


def environment(hub: HubServer, home: Path, token: str = ME) -> dict[str, str]:
    """The environment of a child that goes to `hub`, with caches of its own."""
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else `datasets` asks a host outside
        **_OF_XET,
    }
    return {**os.environ, **own}


def python(code: str, hub: HubServer, home: Path, token: str = ME) -> str:
    """What a child prints that runs `code` against `hub`; its errors if it fails."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(hub, home, token), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout
