"""bench annotate --gpu: its matrix, what a failure costs, the GPU's counters and the shapes, without a GPU."""

import hashlib
import json
import os
import time

import pytest
from PIL import Image

from annotate.bench import gpu
from annotate.bench.gpu import SETTINGS, GpuBench, bench_gpu, cases_of
from annotate.bench.gpus import GpuWatch, gpu_names
from annotate.bench.photographs import SIZE_PX, write_noise
from annotate.bench.shapes import SHAPES, Shape, write_random
from builders.errors import UserError

FAKE = """#!/bin/sh
case "$1" in
  *name*) echo "NVIDIA H100, 81559 MiB, 570.1";;
  *) echo "0, 100"; while :; do echo "80, 2000"; echo "[N/A], 5"; echo "40, 1000"; sleep 0.05; done;;
esac
"""


def figures(way, config, images_per_s=10.0):
    """What a measurement gives, made up."""
    return {
        "n_images": config.limit,
        "n_output_tokens": config.limit * config.n_tokens,
        "wall_s": 1.0,
        "images_per_s": images_per_s,
        "tokens_per_s": 80.0,
        "start_s": 20.0,
        "cpu_s": 1.0,
        "cores_busy": 0.5,
        "peak_mb": 900.0,
        "driver_peak_mb": 100.0,
        "gpu_busy": 0.96,
        "gpu_peak_mb": 70000,
    }


@pytest.fixture
def asked(monkeypatch):
    """Every (way, config) that would have been measured; `asked.speeds` by way or setting, None for a failure."""

    class Asked(list):
        pass

    asked = Asked()
    asked.speeds = {}

    def measure(way, config):
        asked.append((way, config))
        names = [way, *(f"{name}={value}" for name, value in config.engine_args)]
        speed = next((asked.speeds[name] for name in reversed(names) if name in asked.speeds), 10.0)
        if speed is None:
            raise UserError(f"the measurement '{way}' ended with exit code 1")
        return figures(way, config, speed)

    monkeypatch.setattr(gpu, "measure_apart", measure)
    return asked


def bench(tmp_path, **changes):
    settings = {"models": ("dummy-tiny",), "n_images": 3, "n_tokens": 8, "ways": ("ready", "ours"), **changes}
    return GpuBench(out=tmp_path / "gpu", **settings)


def test_the_matrix_is_models_tiles_and_ways_and_then_one_setting_at_a_time():
    cases = cases_of(GpuBench(out="x"))
    assert len(cases) == 3 * 2 * 5 + len(SETTINGS)
    assert len({case.key for case in cases}) == len(cases)
    assert {case.setting for case in cases if case.setting} == set(SETTINGS)
    assert {(case.model, case.tiles, case.way) for case in cases if case.setting} == {
        ("internvl3-8b", "1 tile", "ours")
    }
    assert not [case for case in cases_of(GpuBench(out="x", ways=("ready",))) if case.setting]


def test_what_fails_costs_no_other_and_is_tried_again_and_what_is_measured_is_kept(tmp_path, asked):
    asked.speeds = {"ready": 20.0, "ours": 19.6, "quantization=fp8": None, "max_num_seqs=512": 22.0}
    result = bench_gpu(bench(tmp_path), "vl-dermnet bench annotate --gpu", say=lambda _: None)
    assert len(asked) == len(result["cases"]) == 4 + len(SETTINGS)
    assert json.loads((tmp_path / "gpu.json").read_text())["cases"] == result["cases"]
    page = (tmp_path / "gpu.md").read_text()
    assert "| ours: vl-dermnet annotate, files on disk to Parquet parts | 19.60 | 0.980 |" in page
    assert "Wanted: ours at 0.97 of ready (met) and ahead of all others (met)." in page
    assert "All of DermNet (19,559 photographs) by `annotate`: 0.28 hours" in page
    assert "| max_num_seqs=512 | 22.00 | 1.122 | 96% | 70,000 |" in page
    assert "Fastest: max_num_seqs=512." in page
    assert "- FP8 weights, ours: the measurement 'ours' ended with exit code 1" in page
    asked.clear()
    asked.speeds["quantization=fp8"] = 25.0
    bench_gpu(bench(tmp_path), "again", say=lambda _: None)
    assert [dict(config.engine_args).get("quantization") for _, config in asked] == ["fp8"]
    page = (tmp_path / "gpu.md").read_text()
    assert "Fastest: FP8 weights." in page
    assert "Not measured" not in page


def test_a_way_that_is_faster_than_ours_is_said_and_so_is_a_goal_that_is_missed(tmp_path, asked):
    asked.speeds = {"ready": 20.0, "ours": 10.0, "whole_list": 15.0}
    bench_gpu(bench(tmp_path, ways=("ready", "ours", "whole_list"), has_settings=False), "", say=lambda _: None)
    page = (tmp_path / "gpu.md").read_text()
    assert "Wanted: ours at 0.97 of ready (not met: 0.500) and ahead of all others (not met: whole_list)." in page


def test_made_up_weights_tiles_and_decoders_reach_the_measurement(tmp_path, asked):
    bench_gpu(bench(tmp_path), "", say=lambda _: None)
    assert all(dict(config.engine_args)["load_format"] == "dummy" for _, config in asked)
    assert [config.max_dynamic_patch for _, config in asked][:4] == [1, 1, None, None]
    assert {config.n_workers for _, config in asked} == {None, 2, 8}


def test_figures_of_other_settings_are_not_mixed_with_these(tmp_path, asked):
    bench_gpu(bench(tmp_path, has_settings=False), "", say=lambda _: None)
    with pytest.raises(UserError, match="holds figures of other settings"):
        bench_gpu(bench(tmp_path, n_tokens=9, has_settings=False), "", say=lambda _: None)
    with pytest.raises(UserError, match="unknown way 'quick'"):
        bench_gpu(bench(tmp_path, ways=("quick",)), "", say=lambda _: None)


def test_the_gpus_counters_are_read_between_two_moments(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_names() == ["NVIDIA H100 (81559 MiB, driver 570.1)"]
    with GpuWatch() as watch:
        deadline = time.monotonic() + 20
        while len(watch._samples) < 9 and time.monotonic() < deadline:
            time.sleep(0.02)
    moments = [at for at, _, _ in watch._samples]
    seen = watch.between(moments[1], moments[-1] + 1)
    assert 0.4 < seen.busy <= 0.8
    assert seen.peak_mb == pytest.approx(2000 * 2**20 / 1e6)
    assert watch.between(moments[-1] + 1, moments[-1] + 2) is None


def test_without_nvidia_smi_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_names() == []
    with GpuWatch() as watch:
        began = time.monotonic()
    assert watch.between(began - 10, began + 10) is None


def test_no_two_photographs_are_alike_and_they_are_as_large_as_dermnets(tmp_path):
    write_noise(tmp_path, 5)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"{number:06d}.jpg" for number in range(5)]
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 5
    assert all(60_000 < file.stat().st_size < 130_000 for file in files)
    with Image.open(files[0]) as image:
        assert image.size == SIZE_PX


def test_the_shapes_are_the_published_ones():
    sizes = {name: (shape.width, shape.layers, shape.heads, shape.kv_heads) for name, shape in SHAPES.items()}
    assert sizes["internvl3-1b"] == (896, 24, 14, 2)
    assert sizes["internvl3-2b"] == (1536, 28, 12, 2)
    assert sizes["internvl3-8b"] == (3584, 28, 28, 4)
    assert {shape.vocabulary for name, shape in SHAPES.items() if name.startswith("internvl3")} == {151_674}


def test_a_checkpoint_without_weights_is_one_that_transformers_knows(tmp_path):
    from transformers import AutoConfig, AutoProcessor

    shape = Shape(224, 128, 2, 128, 2, 2, 1, 256, vocabulary=900, max_tiles=12, has_weights=False)
    write_random(tmp_path, shape)
    assert not list(tmp_path.glob("*.safetensors"))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.architectures == ["InternVLForConditionalGeneration"]
    assert config.text_config.vocab_size == 900
    processor = AutoProcessor.from_pretrained(tmp_path)
    tokenizer = processor.tokenizer
    assert len(tokenizer) == 900
    assert tokenizer.decode([899]) == " word899"
    assert processor.image_processor.max_patches == 12
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert (
        tokenizer("You are a doctor.")["input_ids"]
        == tokenizer("You are a doctor.", add_special_tokens=False)["input_ids"]
    )
