"""train on a GPU: what a CPU gives, pixels kept there, mixed precision, and memory that does not do.

`pytest -m gpu tests/test_train_gpu.py`
"""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.test_train_loop import LABELS, SPLIT, config, make_model
from train.experiment import run
from train.inputs import LiveInputs
from train.loop import fit
from train.memory import in_batches
from train.texts import TokenisedTexts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_an_experiment_gives_what_it_gives_on_a_cpu(experiment_config, tmp_path, is_frozen):
    logits = []
    for device in ("cpu", "cuda"):
        settings = experiment_config(device=device, out=tmp_path / device, is_frozen=is_frozen, epochs=1)
        run(settings)
        table = pq.read_table(settings.out / "predictions" / "attention_pooling-official-0.parquet")
        logits.append(np.array(table["logits"].to_pylist()))
    np.testing.assert_allclose(*logits, rtol=1e-2, atol=1e-2)


def test_mapped_pixels_move_to_the_gpu_once_and_are_learned_from_in_mixed_precision(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (len(LABELS), 8, 8, 3)).astype(np.uint8)
    pixels[np.arange(len(LABELS)), :, :, LABELS] += 150
    np.save(tmp_path / "pixels.npy", pixels)
    ids = np.stack([LABELS + 1, rng.integers(4, 10, len(LABELS))], axis=1)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    inputs = LiveInputs(mapped, TokenisedTexts(ids, ids > 0, 0), torch.device("cuda"), is_augmented=True)
    assert isinstance(inputs.pixels, torch.Tensor)
    assert inputs.pixels.is_cuda
    assert (inputs.pixels_of(np.array([3, 1])).cpu().numpy() == pixels[[3, 1]]).all()
    model = make_model().to("cuda")
    fitted = fit(model, inputs, LABELS, SPLIT, config(tmp_path, image_lr=0.05, is_bf16=True), 0, lambda _: None)
    assert fitted.best.validation_macro_f1 == 1.0


def test_a_batch_beyond_the_gpus_memory_is_halved_and_told():
    free, _ = torch.cuda.mem_get_info()
    per_row, told = int(0.3 * free), []

    def take(rows):
        torch.empty((rows.stop - rows.start) * per_row, dtype=torch.uint8, device="cuda")
        return rows.stop - rows.start

    assert [n_rows for _, n_rows in in_batches(4, 4, take, "taking", told.append)] == [2, 2]
    assert len(told) == 1
    assert told[0].startswith("taking: 4 rows at a time do not fit in the device's memory")
