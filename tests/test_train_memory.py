"""train/memory.py: where no gradients are needed, memory that does not do is a smaller batch too, and it is said."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.controls.emap import emap_logits
from train.experiment import run
from train.extract import Extraction, write_features
from train.inputs import LiveInputs, cache_image_features, cache_text_features
from train.loop import predict_logits
from train.memory import in_batches, is_out_of_memory
from train.model import FusionModel
from train.scaling import measure_scaling

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = SHAPES["tiny"]
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(TINY, 60)  # 42 train rows, 6 of validation, 12 of test


class Memory:
    """A device on which only so many rows fit at once; it remembers the batches that did."""

    def __init__(self, n_rows):
        self.n_rows, self.fitted = n_rows, []

    def take(self, n_rows):
        if n_rows > self.n_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.fitted.append(n_rows)


class ShortInputs(LiveInputs):
    """Inputs on such a device."""

    def __init__(self, memory):
        super().__init__(PIXELS, TEXTS, torch.device("cpu"), is_augmented=True)
        self.memory = memory

    def features(self, model, rows, order=None):
        self.memory.take(len(rows))
        return super().features(model, rows, order)


def made(name="concat"):
    return FusionModel(name, CLASS_NAMES, *random_backbones(TINY)).eval()


def test_a_batch_that_does_not_fit_is_begun_again_with_half_its_rows_and_so_are_those_to_come():
    memory, told = Memory(3), []

    def compute(rows):
        memory.take(rows.stop - rows.start)
        return list(range(rows.start, rows.stop))

    found = [row for _, rows in in_batches(20, 8, compute, "prediction", told.append) for row in rows]
    assert found == list(range(20))
    assert memory.fitted == [2] * 10
    assert told == [
        "prediction: 8 rows at a time do not fit in the device's memory: from now on up to 4 are computed at once; the "
        "result stays the same",
        "prediction: 4 rows at a time do not fit in the device's memory: from now on up to 2 are computed at once; the "
        "result stays the same",
    ]


def test_a_row_that_does_not_fit_alone_is_a_clear_error():
    with pytest.raises(UserError) as raised:
        predict_logits(made(), ShortInputs(Memory(0)), SPLIT.test, 4)
    assert str(raised.value) == (
        "prediction: one row at a time does not fit in the device's memory\n"
        "  fix: choose smaller backbones, end what else uses the device, or --device cpu"
    )


def test_another_error_of_the_device_is_not_taken_for_memory():
    def compute(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(in_batches(4, 2, compute, "prediction"))


def test_predictions_in_smaller_batches_are_the_same():
    told, memory = [], Memory(3)
    found = predict_logits(made(), ShortInputs(memory), SPLIT.test, 12, told.append)
    np.testing.assert_allclose(found, predict_logits(made(), ShortInputs(Memory(99)), SPLIT.test, 12), atol=1e-5)
    assert memory.fitted == [3] * 4
    assert len(told) == 2


def test_so_is_the_scale_of_features():
    whole, parts = made(), made()
    measure_scaling(whole, ShortInputs(Memory(99)), SPLIT.train, 16)
    measure_scaling(parts, ShortInputs(Memory(5)), SPLIT.train, 16)
    for name in ("image_pooled", "text_pooled"):
        torch.testing.assert_close(parts.scaling[name].sd, whole.scaling[name].sd)


def test_what_torch_says_where_a_processor_has_no_memory_left_is_understood():
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(told.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_another_error_is_not_taken_for_it():
    def compute(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(in_batches(4, 4, compute, "features"))


def test_so_are_cached_features(tmp_path):
    memory, told = Memory(20), []

    class Short(torch.nn.Module):
        """A backbone that needs its rows to fit."""

        def __init__(self, backbone):
            super().__init__()
            self.backbone, self.model, self.config = backbone, backbone.model, backbone.config

        def forward(self, *given):
            memory.take(len(given[0]))
            return self.backbone(*given)

    image, text = (backbone.eval() for backbone in random_backbones(TINY))
    for cache, first, given in ((cache_image_features, image, (PIXELS, "key")), (cache_text_features, text, (TEXTS,))):
        expected = cache(first, *given, tmp_path / "whole", lambda _: None)
        found = cache(Short(first), *given, tmp_path / "parts", lambda _: None, told.append)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert [message.split(":")[0] for message in told] == ["image features"] * 2 + ["text features"] * 2
    assert max(memory.fitted) == 15


def test_so_are_the_pairs_of_emap():
    expected = emap_logits(made(), ShortInputs(Memory(99)), SPLIT.test, SPLIT.test, 12)
    found = emap_logits(made(), ShortInputs(Memory(5)), SPLIT.test, SPLIT.test, 12)
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Recorded(Memory):
    """Asked by every pass of ViT: batches that are too large with gradients, or without, do not fit."""

    def __init__(self, n_with_gradients, n_without):
        super().__init__(n_without)
        self.limits, self.passes, self.failed = {True: n_with_gradients, False: n_without}, [], []

    def take(self, n_rows):
        has_gradients = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if n_rows > self.limits[has_gradients]:
            self.failed.append((has_gradients, n_rows))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.passes.append((has_gradients, n_rows))


@pytest.fixture
def vit_needs(monkeypatch):
    """A function that puts a memory below every ViT."""
    import transformers

    forward = transformers.ViTModel.forward

    def put(memory):
        def short(self, pixel_values, **options):
            memory.take(len(pixel_values))
            return forward(self, pixel_values=pixel_values, **options)

        monkeypatch.setattr(transformers.ViTModel, "forward", short)
        return memory

    return put


def test_so_are_features_in_a_file(tmp_path, photographs, backbones, vit_needs, capsys):
    config = Extraction(str(backbones / "vit"), batch_size=8)
    write_features(str(photographs), tmp_path / "whole.npz", config)
    memory = vit_needs(Recorded(0, 3))
    write_features(str(photographs), tmp_path / "parts.npz", config)
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "parts.npz") as parts:
        np.testing.assert_allclose(parts["pooled"], whole["pooled"], atol=1e-5)
    assert max(memory.passes) == (False, 2)
    assert capsys.readouterr().err.count("8 rows at a time do not fit") == 1


@pytest.fixture
def experiment(tmp_path, photographs, make_run, backbones, private_cache):
    """A function that trains in batches of 8; 16 train rows, 7 of test."""
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))

    def trained(**options):
        settings = {
            "dataset": str(tmp_path / "dataset"),
            "out": tmp_path / "experiment",
            "image_backbone": str(backbones / "vit"),
            "text_backbone": str(backbones / "bert"),
            "epochs": 1,
            "batch_size": 8,
            "n_seeds": 1,
            "protocol": "official",
            "models": ("image_only",),
        }
        return run(TrainConfig.model_validate(settings | options)).folder

    return trained


def test_what_did_not_fit_in_training_is_not_tried_again_in_a_second_fit_and_in_the_test(experiment, vit_needs):
    memory = vit_needs(Recorded(2, 8))
    folder = experiment(is_refit=True)
    assert read_json(folder / "results.json")["runs"]["image_only-official-0"]["accumulate"] == 4
    assert [n_rows for has_gradients, n_rows in memory.failed if has_gradients] == [8, 4]  # once each
    assert [n_rows for has_gradients, n_rows in memory.failed if not has_gradients] == [26, 13]  # distances to train
    last = max(i for i, (has_gradients, _) in enumerate(memory.passes) if has_gradients)
    assert {n_rows for _, n_rows in memory.passes[last:]} == {1, 2}


@pytest.mark.parametrize("is_frozen", [False, True])
def test_an_experiment_whose_tests_and_features_do_not_fit_ends_with_the_same_predictions(
    experiment, tmp_path, vit_needs, capsys, is_frozen
):
    whole = pq.read_table(experiment(is_frozen=is_frozen) / "predictions" / "image_only-official-0.parquet")
    capsys.readouterr()
    vit_needs(Recorded(8, 3))
    folder = experiment(is_frozen=is_frozen, out=tmp_path / "short")
    parts = pq.read_table(folder / "predictions" / "image_only-official-0.parquet")
    assert parts["image_id"] == whole["image_id"]
    np.testing.assert_allclose(np.stack(parts["logits"].to_pylist()), np.stack(whole["logits"].to_pylist()), atol=1e-3)
    told = capsys.readouterr().err
    assert "image features: 26 rows at a time do not fit" in told if is_frozen else "prediction: " in told
