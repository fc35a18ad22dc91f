"""Each engine gets its own part of the machine."""

import os

import pytest

from annotate.runners.devices import environments, visible_gpus
from builders.errors import UserError


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_engines_share_the_gpus_that_are_visible_and_one_thread_each(four_gpus):
    assert visible_gpus() == ["0", "2", "5", "7"]
    assert environments("vllm", 2, 1) == [
        {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "1"},
        {"CUDA_VISIBLE_DEVICES": "2", "OMP_NUM_THREADS": "1"},
    ]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments("vllm", 2, 2)] == ["0,2", "5,7"]


def test_too_few_gpus_are_said_with_what_would_fit(four_gpus):
    with pytest.raises(UserError) as caught:
        environments("vllm", 3, 2)
    assert str(caught.value) == (
        "--data-parallel 3 with 2 GPUs each needs 6; 4 are visible: 0, 2, 5, 7\n  fix: --data-parallel 2"
    )


def test_a_threads_setting_of_the_user_stands(four_gpus, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environments("vllm", 1, 1) == [{"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "3"}]


def test_one_engine_on_a_cpu_is_left_to_itself_and_several_share_the_cores(no_gpu):
    assert environments("vllm", 1, 1) == [{}]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core cannot be shared")
    shares = [each["VLLM_CPU_OMP_THREADS_BIND"].split(",") for each in environments("vllm", 2, 1)]
    assert sorted(int(core) for share in shares for core in share) == cores
    with pytest.raises(UserError, match=f"here are {len(cores)} cores and no GPU"):
        environments("vllm", len(cores) + 1, 1)


@pytest.mark.parametrize("engine", ["openai", "scripted"])
def test_engines_that_compute_elsewhere_need_no_part_of_the_machine(four_gpus, engine):
    assert environments(engine, 9, 1) == [{}] * 9
