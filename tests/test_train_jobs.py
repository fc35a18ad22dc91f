"""train --jobs: the bits of runs one after the other, whatever dies."""

import os
import signal
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from builders.errors import UserError
from builders.files import read_json
from train.matrix import Run, longest_first

MODELS = ("concat", "attention_pooling")
CONTROLS = ("random_text", "constant_text")


@pytest.fixture
def config(experiment_config):
    several = {"n_seeds": 2, "models": MODELS, "controls": CONTROLS, "control_models": MODELS[:1]}
    return lambda **options: experiment_config(**{**several, **options})


def assert_same(experiments, names):
    """Predictions, heads and tables are equal to the bit."""
    for name in names:
        tables = [pq.read_table(each / "predictions" / f"{name}.parquet") for each in experiments]
        assert tables[0].equals(tables[1])
        if "+" not in name:
            heads = [load_file(each / "models" / name / "fusion.safetensors") for each in experiments]
            assert all(heads[0][key].equal(heads[1][key]) for key in heads[0] | heads[1])
    results = [read_json(each / "results.json") for each in experiments]
    assert results[0]["table"] == results[1]["table"]


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
    assert_same((alone.folder, together.folder), alone.trained)
    assert len(list((together.folder / "backbones").iterdir())) == 2
    again = run(config(out=tmp_path / "together", n_jobs=1))
    assert (again.trained, again.skipped) == ((), alone.trained)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_process_costs_nothing_and_a_killed_experiment_goes_on(config, tmp_path):
    from train.experiment import run

    few = {"models": MODELS[1:], "controls": ()}
    alone = run(config(out=tmp_path / "alone", **few))

    def wait_and_kill():
        while not (found := spawned_by_this()):
            if is_over.wait(0.05):
                return
        killed.append(found[0])
        os.kill(found[0], signal.SIGKILL)

    is_over, killed = threading.Event(), []
    killer = threading.Thread(target=wait_and_kill)
    killer.start()
    try:
        together = run(config(out=tmp_path / "together", n_jobs=2, **few))
    finally:
        is_over.set()
        killer.join()
    assert killed
    assert_same((alone.folder, together.folder), alone.trained)

    (together.folder / "predictions" / f"{alone.trained[0]}.parquet").unlink()  # as if it had been killed before
    again = run(config(out=tmp_path / "together", n_jobs=2, **few))
    assert (again.trained, again.skipped) == (alone.trained[:1], alone.trained[1:])
    assert_same((alone.folder, again.folder), alone.trained)


@pytest.mark.slow
def test_what_a_run_raises_ends_the_experiment(config):
    from train.experiment import run

    with pytest.raises(UserError, match=r"the loss of \w+ became (nan|inf) in epoch"):
        run(config(n_jobs=2, lr=1e30, controls=(), warmup_fraction=0.0))


def spawned_by_this():
    """Processes that this one spawned with multiprocessing, but for the resource tracker."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"spawn_main" in (folder / "cmdline").read_bytes():
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(folder.name)] * (int(parent) == os.getpid())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_those_that_read_tokens_are_begun_first():
    runs = [Run(model, "official", seed) for seed in range(2) for model in ("concat", "attention_pooling", "gmu")]
    ordered = longest_first(runs, lambda each: each.model)
    assert [(each.model, each.seed) for each in ordered[:3]] == [
        ("attention_pooling", 0),
        ("attention_pooling", 1),
        ("concat", 0),
    ]
    assert sorted(ordered, key=runs.index) == runs


def test_jobs_are_for_frozen_backbones(config):
    with pytest.raises(UserError) as caught:
        config(is_frozen=False, controls=(), n_jobs=2)
    assert str(caught.value) == (
        "--jobs 2 trains several heads at once, and without --frozen a run takes the whole device\n"
        "  fix: add --frozen, or leave --jobs out"
    )
