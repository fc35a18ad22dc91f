"""train/processes.py: two processes train as one, and only the first of them writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from train.processes import ALONE, Processes

SCRIPT = """
import sys
import torch
from safetensors.torch import save_file
from train.bench.shapes import CLASS_NAMES, SHAPES, Shape, learnable_data, random_backbones
from train.config import TrainConfig
from train.inputs import LiveInputs
from train.loop import fit
from train.model import FusionModel
from train.processes import joined_processes

torch.set_num_threads(1)
shape = Shape(16, 8, 6, 20, 16, 2, 2, dropout=0.0)
pixels, texts, labels, split = learnable_data(shape, 59)  # 41 train rows: the last batch has one, for two processes
config = TrainConfig(dataset="x", out="x", epochs=2, batch_size=8, accumulate=2, label_smoothing=0.1,
                     imbalance="class_weights", image_lr=1e-3, text_lr=1e-3, ema=0.5)
with joined_processes() as processes:
    torch.manual_seed(processes.number)  # what differs at the start is made the same
    model = FusionModel("concat", CLASS_NAMES, *random_backbones(shape))
    inputs = LiveInputs(pixels, texts, torch.device("cpu"), is_augmented=True)
    done = fit(model, inputs, labels, split, config, 0, lambda _: None, processes=processes)
    flat = ("k_proj.bias", "key.bias")  # their gradients are rounding errors: a softmax does not see these biases
    weights = {name: p.detach() for name, p in model.named_parameters() if not name.endswith(flat)}
    weights["losses"] = torch.tensor([(epoch.train_loss, epoch.validation_loss) for epoch in done.history])
    save_file(weights, f"{sys.argv[1]}-{processes.n}-{processes.number}.safetensors")
"""


def torchrun(n, *command):
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--master-port", "0",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *map(str, command),
    ]  # fmt: skip


def test_shares_of_rows_put_together_are_the_rows():
    rows = np.arange(10, 21)
    shares = [Processes(number, 3).share(rows) for number in range(3)]
    assert np.concatenate(shares).tolist() == rows.tolist()
    assert [len(share) for share in shares] == [4, 4, 3]
    assert ALONE.share(rows).tolist() == rows.tolist()


def test_one_process_alone_needs_no_others():
    value = torch.ones(2)
    assert ALONE.sum(value) is value
    assert ALONE.told_by_first("x") == "x"
    ALONE.wait()
    with ALONE.first_alone():
        assert ALONE.is_first


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    from safetensors.torch import load_file

    (tmp_path / "script.py").write_text(SCRIPT)
    for command in ([sys.executable, tmp_path / "script.py"], torchrun(2, tmp_path / "script.py")):
        subprocess.run([*command, str(tmp_path / "weights")], check=True, cwd=Path(__file__).parents[1])
    one, first, second = (load_file(tmp_path / f"weights-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, expected in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.slow
def test_the_command_trains_in_two_processes_and_the_first_alone_writes(tmp_path, photographs, make_run):
    from builders.build import BuildConfig, build

    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    command = [
        "-m", "annotate", "train", tmp_path / "dataset", "--out", tmp_path / "exp", "--model", "concat", "--seeds", 1,
        "--image-backbone", "tiny-internvl", "--text-backbone", "tiny-internvl", "--epochs", 1, "--batch-size", 8,
        "--protocol", "official", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        torchrun(2, *command, "--head-epochs", 1),
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert json.loads(done.stdout)["protocols"] == ["official"]  # printed once
    for line in ("heads first, on frozen encoders: validation macro-F1", "validation macro-F1"):
        assert done.stderr.count(f"concat-official-0: {line}") == 1
    written = sorted(path.relative_to(tmp_path / "exp").as_posix() for path in (tmp_path / "exp").glob("*"))
    folders = ["cache", "checkpoints", "distances", "missing", "models", "predictions", "validation"]
    assert written == sorted([*folders, "config.json", "report.html", "results.json"])
    assert list((tmp_path / "exp" / "checkpoints").iterdir()) == []

    refused = subprocess.run(
        torchrun(2, *command, "--frozen", "--jobs", 2),
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert refused.returncode != 0
    assert "torchrun's processes share every run, and --jobs would share the runs out" in refused.stderr
