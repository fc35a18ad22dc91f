"""bench annotate: what it measures it measures for real; figures are kept, timings are never asserted."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from annotate.bench import WAYS, BenchConfig, as_markdown, bench_annotate
from annotate.bench.scale import bench_scale
from annotate.bench.server import environment
from builders.errors import UserError
from builders.process_tree import Watch, tree_of
from builders.sample import write_sample

SPIN = "import time; x = bytearray(50_000_000); e = time.monotonic() + 1.5\nwhile time.monotonic() < e: x[0] = 1"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_the_watch_sees_the_processor_time_and_memory_of_the_whole_tree():
    spin = repr(SPIN)[1:-1]
    began = time.monotonic()
    two = f"[subprocess.Popen([sys.executable, '-c', '''{spin}''']) for _ in '12']"
    code = f"import subprocess, sys; [each.wait() for each in {two}]"
    with subprocess.Popen([sys.executable, "-c", code]) as process, Watch(process.pid) as watch:
        process.wait()
    usage = watch.between(began, time.monotonic())
    assert usage.cpu_s > 0.5
    assert usage.peak_bytes > 100_000_000  # two children of 50 MB each


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_tree_holds_children_of_children():
    child = "import time; print(1, flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{child}'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        tree = tree_of(process.pid)
        assert len(tree) == 2
        for pid in tree:
            Path(f"/proc/{pid}/stat").read_text()
        subprocess.run(["kill", "-9", *map(str, tree)], check=True)


def test_a_server_is_repaired_though_a_path_is_set_and_keeps_what_a_person_set(monkeypatch):
    monkeypatch.setattr("builders.torch_repair.hook.mismatch", lambda package: "made up")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # as an engine in this process sets it
    found = environment()
    assert found.items() >= {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_NO_USAGE_STATS": "1"}.items()
    first, *others = found["PYTHONPATH"].split(os.pathsep)
    assert (Path(first, "sitecustomize.py").is_file(), others) == (True, ["/somewhere"])
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in found


def test_an_unknown_way_is_named(tmp_path):
    config = BenchConfig(str(tmp_path), tmp_path / "out", "tiny-internvl", "float32", 8, ways=("quick",))
    with pytest.raises(
        UserError, match="unknown way 'quick'; choose one of: api_server, api_server_x2, loop_of_16, ours"
    ):
        bench_annotate(config, "vl-dermnet bench annotate …")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
@pytest.mark.timeout(600)
def test_every_way_answers_with_as_many_tokens_and_what_was_measured_is_kept(tmp_path, monkeypatch):
    write_sample(tmp_path / "photos", n_images=40, seed=1)
    ways = ("ready", "ours", "loop_of_16")
    config = BenchConfig(
        str(tmp_path / "photos"), tmp_path / "x" / "out", "tiny-internvl", "float32", 8, ways, limit=10, n_rounds=1
    )
    result = bench_annotate(config, "vl-dermnet bench annotate …")
    assert list(result["ways"]) == list(ways)
    assert {(row["n_images"], row["n_output_tokens"]) for row in result["ways"].values()} == {(10, 80)}
    assert result["ways"]["ready"]["ratio"] == 1
    ours, ready = (result["ways"][way]["rounds"][0]["images_per_s"] for way in ("ours", "ready"))
    assert result["ways"]["ours"]["ratio"] == pytest.approx(ours / ready, abs=1e-3)
    page = (tmp_path / "x" / "out.md").read_text()
    assert "| loop_of_16: LLM.chat on 16 at a time, each batch decoded first |" in page

    speeds = {"ready": 2 * ready, "ours": ready, "loop_of_16": ready}  # a second round, in which nothing is started

    def measure(way, _):
        return result["ways"][way]["rounds"][0] | {"images_per_s": speeds.pop(way)}

    monkeypatch.setattr("annotate.bench.measure_apart", measure)
    for _ in range(2):  # the second time nothing is left to measure
        again = bench_annotate(replace(config, n_rounds=2), "vl-dermnet bench annotate …")
        assert not speeds
        assert again["ways"] == json.loads((tmp_path / "x" / "out.json").read_text())["ways"]
        ratios = [ours / ready, 0.5]
        assert again["ways"]["ours"]["ratio"] == pytest.approx(sum(ratios) / 2, abs=1e-3)
        assert again["ways"]["ours"]["ratio_range"] == pytest.approx(sorted(ratios), abs=1e-3)


def test_figures_of_other_settings_are_kept_and_a_name_may_hold_a_dot(tmp_path, monkeypatch):
    names = "n_images n_output_tokens wall_s images_per_s tokens_per_s start_s cpu_s cores_busy peak_mb driver_peak_mb"
    monkeypatch.setattr("annotate.bench.measure_apart", lambda way, config: dict.fromkeys(names.split(), 1.0))
    config = BenchConfig("photos", tmp_path / "model-3.1", "tiny-internvl", "float32", 8, ("ready",), n_rounds=1)
    bench_annotate(config, "the first")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-3.1.json", "model-3.1.md"]
    kept = json.loads((tmp_path / "model-3.1.json").read_text())
    with pytest.raises(UserError) as caught:
        bench_annotate(replace(config, n_tokens=16), "the second")
    assert str(caught.value) == (
        f"{tmp_path}/model-3.1.json holds figures of other settings: {kept['settings']}\n  fix: choose another --out"
    )
    assert json.loads((tmp_path / "model-3.1.json").read_text()) == kept
    del kept["settings"]["n_workers"]  # an older version had no such setting
    (tmp_path / "model-3.1.json").write_text(json.dumps(kept))
    again = bench_annotate(replace(config, n_rounds=2), "the third")
    assert len(again["ways"]["ready"]["rounds"]) == 2


@pytest.mark.parametrize("others", [{}, {"whole_list": 1.1, "loop_of_16": 0.7}])
def test_the_page_tells_where_the_seconds_go_and_which_ways_are_faster(others):
    seconds = {"ready": (10.0, 18.0, 1.0), "ours": (12.0, 21.0, 0.8)}
    seconds |= {way: (10.0 / ratio, 18.0, ratio) for way, ratio in others.items()}
    rows = {
        way: {"n_images": 100, "rounds": [1], "ratio": ratio, "ratio_range": [ratio, ratio], "images_per_s": 1.0}
        | {"wall_s": wall_s, "cpu_s": cpu_s, "cores_busy": 0.9, "peak_mb": 100.0}
        for way, (wall_s, cpu_s, ratio) in seconds.items()
    }
    result = {
        "command": "bench",
        "at": "now",
        "versions": {},
        "machine": {"gpus": [], "n_cores": 2, "memory_gib": 24},
        "settings": {"model": "m", "dtype": "float32", "n_tokens": 8},
        "ways": rows,
    }
    page = as_markdown(result, WAYS)
    assert "ours takes +2.0 s; its own work (decode, hash, checks, parts) is +3.0 s of CPU, on 2 cores +1.5 s." in page
    assert "Its wall is 1.14 of all CPU seconds ÷ cores." in page
    assert ("Its peak memory is +0 MB beside the whole list" in page) == bool(others)
    told = [line.split(":")[0] for line in page.splitlines() if line.startswith("- ")]
    assert told == [f"- Faster than ours here, {way}" for way in ("ready", *(["whole_list"] if others else []))]
    assert "on 2 cores" not in as_markdown({**result, "ways": {"ours": rows["ours"]}}, WAYS)


def test_the_scale_bench_runs_and_resumes(tmp_path):
    result = bench_scale(tmp_path / "scale", (30,), "vl-dermnet bench scale …")
    (scale,) = result["scales"]
    assert scale["n_images"] == 30
    assert 0 < scale["first_part_s"] <= scale["run_s"]
    assert scale["driver_peak_mb"] > 10
    assert (tmp_path / "scale.md").read_text().startswith("# annotate: what the driver costs")
