"""The command line: fast help, one-line mistakes, results on stdout and the rest on stderr."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

COMMANDS = (
    "demo",
    "doctor",
    "sample",
    "index",
    "annotate",
    "status",
    "build",
    "audit",
    "check",
    "gallery",
    "compare",
    "publish",
    "train",
    "train-features",
    "features",
    "table",
    "report",
    "predict",
)


def vl_dermnet(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "annotate", *map(str, words)], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "train" / "papule"
    folder.mkdir(parents=True)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.jpg")
    return tmp_path / "photos"


def test_help_imports_nothing_heavy():
    heavy = ("torch", "transformers", "vllm", "datasets", "pyarrow", "numpy", "PIL", "huggingface_hub", "pydantic")
    code = f"import sys, annotate.cli; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    ended = vl_dermnet(command, "--help")
    assert ended.returncode == 0
    assert f"Example: vl-dermnet {command}" in ended.stdout


def test_help_lists_every_command_and_no_other():
    listed = vl_dermnet("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert sorted(names) == sorted((*COMMANDS, "bench"))


def test_a_mistake_is_one_message_without_a_traceback():
    ended = vl_dermnet("index", "nowhere", "--out", "x.parquet")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "error: no such folder, .zip, .parquet or .tar file: nowhere\n"
        "  fix: check the path; a relative one starts at this folder, one on the Hub is hf://datasets/OWNER/NAME\n"
    )


def test_a_wrong_word_is_a_usage_error():
    ended = vl_dermnet("annotate", "photos", "--out", "run", "--no-such-option")
    assert ended.returncode == 2
    assert "No such option: --no-such-option" in ended.stderr


def test_results_go_to_stdout_as_json(photos, tmp_path):
    ended = vl_dermnet("index", photos, "--out", tmp_path / "index.parquet", "--json")
    assert json.loads(ended.stdout)["n_ok"] == 3
    ended = vl_dermnet("annotate", photos, "--out", tmp_path / "run", "--engine", "scripted", "--json")
    assert json.loads(ended.stdout)["n_ok"] == 3
    assert "engine: scripted (asked for)" in ended.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"].startswith("vl-dermnet annotate ")


def test_too_many_refused_files_end_with_3_after_all_is_done(photos, tmp_path):
    (photos / "train" / "papule" / "broken.jpg").write_text("no image")
    ended = vl_dermnet("annotate", photos, "--out", tmp_path / "run", "--engine", "scripted")
    assert ended.returncode == 3
    assert "1 of 4 images were refused or failed, more than --max-refused 0.02 allows" in ended.stderr
    assert (tmp_path / "run" / "summary.json").exists()
    assert (
        vl_dermnet(
            "annotate", photos, "--out", tmp_path / "run", "--engine", "scripted", "--max-refused", "0.3"
        ).returncode
        == 0
    )


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a tiny disk")
def test_a_full_disk_is_one_message_and_the_run_goes_on_when_there_is_room(photos, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        (disk / "ballast").write_bytes(b"x" * 48 * 1024)
        command = ("annotate", photos, "--out", disk / "run", "--engine", "scripted")
        ended = vl_dermnet(*command)
        assert ended.returncode == 1
        assert "error: cannot write: No space left on device" in ended.stderr
        assert "fix: make room or write elsewhere, then type the same command again" in ended.stderr
        assert "Traceback" not in ended.stderr
        (disk / "ballast").unlink()
        assert vl_dermnet(*command).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_whole_path_from_photographs_to_load_dataset(photos, tmp_path):
    import datasets

    vl_dermnet("annotate", photos, "--out", tmp_path / "run", "--engine", "scripted")
    ended = vl_dermnet("build", photos, "--run", tmp_path / "run", "--out", tmp_path / "dataset", "--with-images")
    assert ended.returncode == 0, ended.stderr
    loaded = datasets.load_dataset(str(tmp_path / "dataset"), cache_dir=str(tmp_path / "cache"))
    features = loaded["train"].features
    assert isinstance(features["image"], datasets.Image)
    assert isinstance(features["label"], datasets.ClassLabel)
    assert features["description"] == datasets.Value("string")
    assert loaded["train"].num_rows == 3


def test_a_demo_renders_anew_what_an_interrupted_one_left_half_done(tmp_path):
    (tmp_path / "demo" / "photos").mkdir(parents=True)
    (tmp_path / "demo" / "photos" / "half.jpg").write_text("half")
    (tmp_path / "demo" / ".photos-under-way").touch()
    ended = vl_dermnet("demo", "--out", tmp_path / "demo", "--images", 40, "--engine", "stop-here")
    assert "error: the demo stopped: `vl-dermnet annotate` ended with exit code 1" in ended.stderr
    assert [path.name for path in (tmp_path / "demo").glob("*photos*")] == ["photos"]
    photographs = sorted((tmp_path / "demo" / "photos").rglob("*.jpg"))
    assert len(photographs) == 42  # two of them twice
    ended = vl_dermnet("demo", "--out", tmp_path / "demo", "--images", 41)
    assert ended.stderr == (
        f"error: {tmp_path}/demo/photos holds the 40 photographs of an earlier demo, not 41\n"
        f"  fix: vl-dermnet demo --out {tmp_path}/demo --images 40   or another --out\n"
    )
    (tmp_path / "demo" / "photos" / "attributes.csv").unlink()  # somebody's own folder, as far as anybody can tell
    ended = vl_dermnet("demo", "--out", tmp_path / "demo", "--images", 40)
    assert ended.stderr == (
        f"error: {tmp_path}/demo/photos is there already and is not of a demo\n  fix: vl-dermnet demo --out demo2\n"
    )
    assert sorted((tmp_path / "demo" / "photos").rglob("*.jpg")) == photographs


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_doctor_tells_the_engine(tmp_path):
    ended = vl_dermnet("doctor", "--json")
    assert ended.returncode == 0
    assert any("engine" in finding["name"] for finding in json.loads(ended.stdout))
