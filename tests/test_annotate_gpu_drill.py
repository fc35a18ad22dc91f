"""The failure drill of a real engine whose core is a process of its own, as on a GPU: no row lost, clear reasons.

`pytest -m gpu tests/test_annotate_gpu_drill.py`; without a GPU it drills the CPU build, started the same way.
"""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from builders.process_tree import tree_of
from builders.run_folder import part_files, read_part
from builders.sample import write_sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed"),
]
N_IMAGES = 120


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_sample(folder, n_images=N_IMAGES, seed=5)
    return folder


def annotate(photos, out, *options, **environment):
    """The command, started; its core in a process of its own."""
    words = [sys.executable, "-m", "annotate", "annotate", str(photos), "--out", str(out), "--model", "tiny-internvl"]
    words += ["--dtype", "float32", *options]
    variables = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", **environment}
    return subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def core_of(pid):
    """The engine core's process; it names itself."""
    for child in tree_of(pid):
        try:
            if "EngineCore" in Path(f"/proc/{child}/cmdline").read_text():
                return child
        except OSError:
            continue
    return None


def rows_of(run):
    return [row for part in part_files(run) for row in read_part(part)]


def test_an_engine_core_that_is_killed_costs_no_row_and_no_half_hour(photos, tmp_path):
    with annotate(photos, tmp_path / "run", "--engine-arg", "max_num_seqs=4") as process:
        deadline = time.monotonic() + 600
        while not part_files(tmp_path / "run") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(core_of(process.pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "EngineCore was killed by SIGKILL" in output
    rows = rows_of(tmp_path / "run")
    assert {row.status for row in rows} == {"ok"}
    assert len({row.image_sha256 for row in rows}) == N_IMAGES


def test_memory_that_is_not_there_is_told_and_the_run_goes_on_with_less(photos, tmp_path):
    import torch

    on_gpu = ["--engine-arg", "gpu_memory_utilization=1.0"] if torch.cuda.is_available() else []
    with annotate(photos, tmp_path / "run", "--limit", "3", *on_gpu, VLLM_CPU_KVCACHE_SPACE="10000") as process:
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    assert "the engine does not start: ValueError: " in output
    assert "fix: --engine-arg gpu_memory_utilization=0.8" in output
    with annotate(photos, tmp_path / "run", "--limit", "3") as process:
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert len(rows_of(tmp_path / "run")) == 3


def test_a_context_longer_than_the_model_is_told(photos, tmp_path):
    with annotate(photos, tmp_path / "run", "--limit", "3", "--engine-arg", "max_model_len=2000000") as process:
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    assert "vLLM cannot load tiny-internvl with this context: User-specified max_model_len (2000000)" in output
    assert "fix: --engine-arg max_model_len=N" in output
