"""Runs at once: the bits of runs one after the other, and no process left behind, whatever dies."""

import os
import signal
import time

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from builders.errors import UserError
from builders.files import read_json
from train.at_once import at_once
from train.config import TrainConfig
from train.matrix import Run, longest_first

MODELS = ("concat", "attention_pooling")
CONTROLS = ("random_text", "constant_text")


def begin(offset):
    """Runs in each process: gives the work on a task."""
    if offset == "mistake":
        raise UserError("it cannot begin", "begin otherwise")

    def work(task, note):
        note(f"{task} begins")
        if task == "mistake":
            raise UserError("task mistake is one", "leave it out")
        if task == "bug":
            raise ZeroDivisionError(task)
        if task == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "sleep":
            note(os.getpid())
            time.sleep(600)
        return task * offset, os.getpid()

    return work


def done_of(tasks, n=2, offset=10):
    notes, done = [], {}
    at_once(tasks, n, begin, (offset,), notes.append, lambda task, result: done.update({task: result}))
    return notes, done


def test_every_task_is_done_once_and_the_processes_do_several():
    notes, done = done_of(list(range(7)))
    assert {task: result for task, (result, _) in done.items()} == {task: 10 * task for task in range(7)}
    assert sorted(notes) == [f"{task} begins" for task in range(7)]
    pids = {pid for _, pid in done.values()}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_of_no_task_nothing_is_started():
    assert done_of([]) == ([], {})


@pytest.mark.parametrize(
    ("tasks", "offset", "error", "message"),
    [
        ([1, "mistake", 2], 1, UserError, "task mistake is one\n  fix: leave it out"),
        ([1], "mistake", UserError, "it cannot begin\n  fix: begin otherwise"),
        ([1, "bug"], 1, RuntimeError, "a process failed while it did bug; why is told above"),
        (
            [1, "killed"],
            1,
            UserError,
            "a process was killed by SIGKILL while it did killed; perhaps memory ran out. What was finished is kept\n"
            "  fix: the same command again, with fewer --jobs",
        ),
    ],
)
def test_what_goes_wrong_is_told(tasks, offset, error, message):
    with pytest.raises(error) as caught:
        done_of(tasks, offset=offset)
    assert str(caught.value) == message


def test_the_others_end_with_the_first_mistake():
    pids = []

    def hear(note):
        if isinstance(note, int):
            pids.append(note)

    with pytest.raises(UserError, match="task mistake is one"):
        at_once(["sleep", "mistake"], 2, begin, (1,), hear, lambda *_: None)
    for pid in pids:  # joined: nobody has this number
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_those_that_read_tokens_are_begun_first():
    runs = [Run(model, "official", seed) for seed in range(2) for model in ("concat", "attention_pooling", "gmu")]
    ordered = longest_first(runs, lambda each: each.model)
    assert [(each.model, each.seed) for each in ordered[:3]] == [
        ("attention_pooling", 0),
        ("attention_pooling", 1),
        ("concat", 0),
    ]
    assert sorted(ordered, key=runs.index) == runs


@pytest.fixture
def config(tmp_path, dataset, backbones):
    def make(**options):
        defaults = {
            "dataset": str(dataset),
            "out": tmp_path / "exp",
            "image_backbone": str(backbones / "vit"),
            "text_backbone": str(backbones / "bert"),
            "is_frozen": True,
            "epochs": 3,
            "batch_size": 8,
            "n_seeds": 2,
            "protocol": "official",
            "models": MODELS,
            "controls": CONTROLS,
            "control_models": MODELS[:1],
        }
        return TrainConfig.model_validate({**defaults, **options})

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_runs_at_once_give_the_bits_of_runs_one_after_the_other(config, tmp_path, capfd):
    from train.experiment import run

    alone = run(config(out=tmp_path / "alone"))
    capfd.readouterr()
    together = run(config(out=tmp_path / "together", n_jobs=3))
    assert together.trained == alone.trained
    told = capfd.readouterr().err
    assert all(f"{name}: validation macro-F1" in told for name in alone.trained)
    for name in alone.trained:
        tables = [pq.read_table(each.folder / "predictions" / f"{name}.parquet") for each in (alone, together)]
        assert tables[0].equals(tables[1])
        if "+" not in name:
            heads = [load_file(each.folder / "models" / name / "fusion.safetensors") for each in (alone, together)]
            assert all(heads[0][key].equal(heads[1][key]) for key in heads[0] | heads[1])
    results = [read_json(each.folder / "results.json") for each in (alone, together)]
    assert results[0]["table"] == results[1]["table"]
    assert len(list((together.folder / "backbones").iterdir())) == 2
    again = run(config(out=tmp_path / "together", n_jobs=1))
    assert (again.trained, again.skipped) == ((), alone.trained)


def test_jobs_are_for_frozen_backbones(config):
    with pytest.raises(UserError) as caught:
        config(is_frozen=False, controls=(), n_jobs=2)
    assert str(caught.value) == (
        "--jobs 2 trains several heads at once, and without --frozen a run takes the whole device\n"
        "  fix: add --frozen, or leave --jobs out"
    )
