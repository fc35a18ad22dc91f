"""vLLM's own API server on loopback, as `vllm serve` starts it: for measurements and tests beside the engine.

`python -m vllm.entrypoints.openai.api_server`, because the CPU wheel's command `vllm` does not find its own version.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from annotate.engines.vllm import CPU_DEFAULTS, CPU_ENVIRONMENT, ENVIRONMENT, is_cpu_build
from builders.torch_repair import child_environment

START_S = 600.0
END_S = 30.0


@contextmanager
def running_server(
    location: str, name: str, dtype: str, n_front_ends: int, engine_args: dict[str, Any]
) -> Generator[str]:
    """The URL of a server that serves the checkpoint at `location` as `name`; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", location]
    words += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", name, "--dtype", dtype]
    words += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}', "--mm-processor-cache-gb", "0"]
    words += ["--api-server-count", str(n_front_ends), *_options(engine_args)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment()) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(END_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _options(engine_args: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in {**(CPU_DEFAULTS if is_cpu_build() else {}), **engine_args}.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(value if isinstance(value, str) else json.dumps(value))
    return words


def environment() -> dict[str, str]:
    """The server's: this process's own, what an engine here would set and is not set, and the repair of torchvision."""
    ours = {**ENVIRONMENT, **(CPU_ENVIRONMENT if is_cpu_build() else {}), **os.environ}
    ours.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # a server cannot do without
    return {**ours, **child_environment(os.environ)}


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {server.returncode}; its messages stand above")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a fixed http address of this machine
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"the server was not ready after {START_S:.0f} s")
