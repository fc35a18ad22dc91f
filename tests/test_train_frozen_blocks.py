"""train/frozen_blocks.py: training from cached states is training from pixels, begun later; saved models are whole."""

import copy
import shutil
from collections import namedtuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from builders.errors import UserError
from builders.files import read_json
from builders.torch_repair import repair
from train import mapped
from train.augmentation import is_mirrored
from train.backbones import BackboneConfig, ImageBackbone
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.data import load_examples
from train.experiment import run
from train.frozen_blocks import FrozenBlocks, begun_with, cache_frozen_blocks, stand_in
from train.inputs import LiveInputs
from train.loop import fit, predict_logits
from train.model import FusionModel, load_fusion_model
from train.parts import load_parts
from train.pixels import PixelConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(TINY, 60)
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**SIZES, "image_size": 16, "patch_size": 4}
DINO = {**VISION, "hidden_dropout_prob": 0.1, "drop_path_rate": 0.2}
KINDS = {
    "vit": ("ViTModel", "ViTConfig", {**VISION, "hidden_dropout_prob": 0.1}),
    "deit": ("DeiTModel", "DeiTConfig", VISION),
    "dinov2": ("Dinov2Model", "Dinov2Config", DINO),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {**DINO, "num_register_tokens": 4}),
    # Live training moves DINOv3's positions at random, before the frozen blocks too; here they stay.
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**VISION, "num_register_tokens": 4, "pos_embed_rescale": None}),
    "siglip2": ("SiglipVisionModel", "SiglipVisionConfig", VISION),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", VISION),
    "convnext": (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 16], "depths": [1, 1, 1], "num_stages": 3},
    ),
}
HALF = (0.5, 0.5, 0.5)
GEOMETRY = PixelConfig(
    resize="exact", resize_px=(16, 16), crop_px=(16, 16), resample=2, rescale_factor=1 / 255, mean=HALF, std=HALF
)


def encoder(kind, **changes):
    repair()
    import transformers

    torch.manual_seed(0)
    architecture, configuration, sizes = KINDS[kind]
    model = getattr(transformers, architecture)(getattr(transformers, configuration)(**sizes | changes))
    with torch.no_grad():  # layer scales and biases too, so that nothing is the identity by accident
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    pooling = "mean" if kind in ("siglip2", "convnext") else "first"
    about = BackboneConfig(
        source=kind, revision=None, architecture=architecture, pooling=pooling, skips_first=False, dim=16
    )
    return ImageBackbone(model, about, GEOMETRY).eval()


def cached(image, n_layers, folder, n_views=1, told=None):
    told = [] if told is None else told
    states = cache_frozen_blocks(image, n_layers, PIXELS, "key", n_views, folder, lambda _: None, told.append)
    return FrozenBlocks(states, n_layers, CPU)


def config(**options):
    settings = {"epochs": 2, "batch_size": 16, "image_lr": 1e-2, "text_lr": 1e-2, "image_layers": 1, "text_layers": 0}
    return TrainConfig(dataset="x", out="x", **{**settings, **options})


def fitted(image, inputs, settings, folder=None):
    text = random_backbones(TINY)[1]
    model = FusionModel("attention_pooling", CLASS_NAMES, copy.deepcopy(image), text)
    done = fit(model, inputs, LABELS, SPLIT, settings, 0, lambda _: None, checkpoints=folder)
    return model, done


@pytest.mark.parametrize(("kind", "n_layers"), [*((kind, 1) for kind in KINDS), ("dinov2", 2), ("dinov3", 3)])
def test_training_from_cached_states_is_live_training(kind, n_layers, tmp_path):
    image, settings = encoder(kind), config(image_layers=n_layers)
    live, expected = fitted(image, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False), settings)
    inputs = LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False, frozen_blocks=cached(image, n_layers, tmp_path))
    model, done = fitted(image, inputs, settings)
    for ours, theirs in zip(done.history, expected.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-4)
    before, after = live.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    n_changed = 0
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-4)
        n_changed += not torch.equal(weight, image.state_dict().get(name.removeprefix("image."), weight))
    assert n_changed
    # The encoder is as it was: nothing hangs on it, and it sees pixels again.
    assert not any("forward" in vars(module) for module in model.image.modules())
    from_pixels = predict_logits(model, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False), SPLIT.test, 8)
    np.testing.assert_allclose(predict_logits(model, inputs, SPLIT.test, 8), from_pixels, rtol=1e-4, atol=1e-4)


def test_adapters_in_the_last_block_are_trained_from_cached_states_too(tmp_path):
    image, settings = encoder("dinov2", hidden_dropout_prob=0.0), config(lora=2)
    _, expected = fitted(image, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False), settings)
    inputs = LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False, frozen_blocks=cached(image, 1, tmp_path))
    model, done = fitted(image, inputs, settings)
    assert done.best.train_loss == pytest.approx(expected.best.train_loss, rel=1e-4)
    assert type(model.image.model).__name__ == "Dinov2Model"


def test_positions_that_move_in_training_stay_where_the_states_were_made(tmp_path):
    image = encoder("dinov3", pos_embed_rescale=2.0)
    kept = cached(image, 1, tmp_path)
    expected = kept.encode(image, np.arange(4)).tokens
    assert torch.equal(kept.encode(image.train(), np.arange(4)).tokens, expected)
    assert image.model.rope_embeddings.training


def test_half_precision_is_taken_beyond_a_size_and_hardly_changes_what_is_predicted(tmp_path, monkeypatch):
    image = encoder("dinov2")
    whole = cached(image, 1, tmp_path / "whole")
    monkeypatch.setattr(mapped, "_FLOAT32_BYTES", 1000)
    told = []
    half = cached(image, 1, tmp_path / "half", told=told)
    assert (whole.states.dtype, half.states.dtype) == (np.float32, np.float16)
    assert told == [
        "what enters block 3 of 3 of Dinov2Model is computed once for 60 photographs: 0.03 MB in float16, below "
        f"{tmp_path / 'half'}"
    ]
    model, _ = fitted(image, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False, frozen_blocks=half), config())
    from_pixels = predict_logits(model, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False), SPLIT.test, 8)
    inputs = LiveInputs(PIXELS, TEXTS, CPU, is_augmented=False, frozen_blocks=half)
    np.testing.assert_allclose(predict_logits(model, inputs, SPLIT.test, 8), from_pixels, rtol=0, atol=2e-2)


def test_half_of_the_photographs_are_mirrored_and_none_is_shifted(tmp_path):
    image = encoder("vit")
    kept = cached(image, 1, tmp_path, n_views=2)
    rows = np.arange(len(PIXELS))
    mirrored = is_mirrored(rows, 3, 1)
    on_device = FrozenBlocks(torch.from_numpy(np.array(kept.states)), 1, CPU)
    assert torch.equal(on_device.states_of(rows[::3], (3, 1)), kept.states_of(rows[::3], (3, 1)))
    assert 10 < mirrored.sum() < 50
    seen = np.where(mirrored[:, None, None, None], PIXELS[:, :, ::-1], PIXELS)
    with torch.inference_mode():
        with begun_with(image, kept.states_of(rows, (3, 1)), 1):
            found = image(stand_in(image, len(rows))).tokens
        torch.testing.assert_close(found, image(torch.from_numpy(seen)).tokens, rtol=1e-4, atol=1e-4)
        as_they_are = kept.encode(image, rows).tokens
        torch.testing.assert_close(as_they_are, image(torch.from_numpy(PIXELS)).tokens, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[mirrored], as_they_are[mirrored], atol=1e-2)


class StoppedError(Exception):
    """Stands for a kill inside a process."""


def stop_at(number):
    """A function that stops at its n-th call; else it does nothing."""
    left = [number]

    def call(*_):
        left[0] -= 1
        if left[0] == 0:
            raise StoppedError

    return call


@pytest.mark.parametrize("stopped_at", [2, 4, 7])
def test_a_cache_that_was_stopped_goes_on_and_is_whole_or_absent(tmp_path, stopped_at):
    image = encoder("vit")
    expected = cached(image, 1, tmp_path / "whole", n_views=2).states
    with pytest.raises(StoppedError):  # the first call tells what was there already
        cache_frozen_blocks(image, 1, PIXELS, "key", 2, tmp_path / "cache", stop_at(stopped_at))
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "states.npy").exists()
    told, advanced = [], []
    states = cache_frozen_blocks(image, 1, PIXELS, "key", 2, tmp_path / "cache", advanced.append, told.append)
    assert np.array_equal(states, expected)
    n_there = [16, 32, 48, 60, 76, 92][stopped_at - 2]
    assert told[0].endswith(f"; {n_there} of 120 are there")
    assert (advanced[0], sum(advanced)) == (n_there, 120)
    assert [file.name for file in folder.iterdir()] == ["states.npy"]
    again = cached(image, 1, tmp_path / "cache", n_views=2, told=(quiet := []))
    assert np.array_equal(again.states, expected)
    assert quiet == []


def test_other_weights_pixels_or_blocks_are_another_cache(tmp_path):
    image = encoder("vit")
    cached(image, 1, tmp_path)
    cached(image, 2, tmp_path)
    cache_frozen_blocks(image, 1, PIXELS, "other", 1, tmp_path, lambda _: None)
    with torch.no_grad():
        next(image.model.parameters()).add_(0.1)
    cached(image, 1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_memory_that_does_not_do_halves_the_batches(tmp_path):
    image = encoder("vit")
    expected = cached(image, 1, tmp_path / "whole").states

    def look(_, arguments):
        if len(arguments[0]) > 10:
            raise torch.OutOfMemoryError

    image.model.embeddings.register_forward_pre_hook(look)
    found = cached(image, 1, tmp_path / "halved", told=(told := []))
    np.testing.assert_allclose(found.states, expected, rtol=1e-5, atol=1e-5)
    assert told[1].startswith("frozen blocks: 16 rows at a time do not fit in the device's memory: from now on up to 8")


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 5000))
    with pytest.raises(UserError) as raised:
        cached(encoder("vit"), 1, tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} has 0.01 MB free, and what enters the first trained block and is not there yet takes 0.07 MB\n"
        "  fix: make room, choose --no-augment (no mirror images), or leave --cache-frozen-blocks out"
    )


@pytest.mark.parametrize("how", ["fails", "differs"])
def test_an_encoder_that_cannot_be_begun_at_a_block_is_refused(tmp_path, how):
    image = encoder("vit")
    forward, first = image.model.forward, image.model.layers[0]

    def unusual(pixel_values):
        found = forward(pixel_values=pixel_values)
        if how == "fails":
            _ = first.seen.shape  # what a block leaves behind
        else:
            found.last_hidden_state = found.last_hidden_state + pixel_values.mean()
        return found

    first.register_forward_hook(lambda *_: setattr(first, "seen", None if "forward" in vars(first) else torch.ones(1)))
    image.model.forward = unusual
    problem = {
        "fails": "ViTModel cannot be begun at one of its blocks: 'NoneType' object has no attribute 'shape'",
        "differs": "ViTModel does not give the same when it is begun at one of its blocks",
    }
    with pytest.raises(UserError) as raised:
        cached(image, 1, tmp_path)
    assert str(raised.value) == f"{problem[how]}\n  fix: leave --cache-frozen-blocks out"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_stops", [1, 5])
def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, n_stops):
    image, settings = encoder("dinov2"), config(checkpoint_every_s=0)
    kept = cached(image, 1, tmp_path / "cache", n_views=2)
    expected, done = fitted(image, LiveInputs(PIXELS, TEXTS, CPU, is_augmented=True, frozen_blocks=kept), settings)

    class Stopping(LiveInputs):
        call = staticmethod(stop_at(n_stops))

        def features(self, model, rows, order=None):
            if order is not None:
                self.call()
            return super().features(model, rows, order)

    with pytest.raises(StoppedError):
        fitted(image, Stopping(PIXELS, TEXTS, CPU, True, kept), settings, tmp_path / "checkpoint")
    inputs = LiveInputs(PIXELS, TEXTS, CPU, is_augmented=True, frozen_blocks=cached(image, 1, tmp_path / "cache", 2))
    model, again = fitted(image, inputs, settings, tmp_path / "checkpoint")
    assert again == done
    after = model.state_dict()
    assert [name for name, weight in expected.state_dict().items() if not torch.equal(after[name], weight)] == []


REFUSED = {
    "--cache-frozen-blocks is for training the last blocks, and with --frozen none is trained\n"
    "  fix: leave --cache-frozen-blocks out": {"is_frozen": True},
    "--cache-frozen-blocks needs to know which blocks are frozen: all but the last N\n  fix: --image-layers N": {},
    "--cache-frozen-blocks keeps what enters the first trained block, and --image-layers 0 trains none\n"
    "  fix: --image-layers 1, or leave --cache-frozen-blocks out": {"image_layers": 0},
    "--cache-frozen-blocks begins an encoder at a block, which --compile cannot do\n  fix: leave one out": {
        "image_layers": 1,
        "is_compiled": True,
    },
    "the control second_image trains another encoder on augmented pixels, and --cache-frozen-blocks augments none\n"
    "  fix: leave --second-image-backbone out, or leave --cache-frozen-blocks out": {
        "image_layers": 1,
        "controls": ("all",),
        "second_image_backbone": "x/y",
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused(message):
    with pytest.raises(UserError) as raised:
        TrainConfig(dataset="x", out="x", caches_frozen_blocks=True, **REFUSED[message])
    assert str(raised.value) == message
    assert TrainConfig(dataset="x", out="x", caches_frozen_blocks=True, image_layers=1, lora=4).lora == 4


def test_one_cache_serves_an_experiment_whose_models_see_pixels(dataset, backbones, tmp_path, capsys):
    settings = TrainConfig(
        dataset=str(dataset),
        out=tmp_path / "exp",
        image_backbone=str(backbones / "vit"),
        text_backbone=str(backbones / "bert"),
        models=("image_only", "concat"),
        epochs=1,
        batch_size=8,
        n_seeds=1,
        image_layers=1,
        text_layers=1,
        caches_frozen_blocks=True,
    )
    run(settings)
    (folder,) = (settings.out / "cache").glob("image-blocks-*")
    written = (folder / "states.npy").stat().st_mtime_ns
    assert "computed once for" in capsys.readouterr().err
    run(settings.model_copy(update={"n_seeds": 2}))
    assert (folder / "states.npy").stat().st_mtime_ns == written
    assert "computed once for" not in capsys.readouterr().err
    runs = read_json(settings.out / "results.json")["runs"]
    assert len(runs) == 2 * 2 * 2
    assert all(each["config"]["caches_frozen_blocks"] for each in runs.values())
    said = (
        "backbones fine-tuned: image the last 1 block, text the last 1 block, on images mirrored at random, not shifted"
    )
    assert said in " ".join((settings.out / "report.html").read_text(encoding="utf-8").split()).replace("&#39;", "'")

    examples = load_examples(settings)
    live = settings.model_copy(update={"caches_frozen_blocks": False})
    inputs = load_parts(live, examples, {"concat"}, CPU, Console(quiet=True)).inputs
    for name in ("image_only-official-1", "concat-clean-0"):
        model, _ = load_fusion_model(settings.out / "models" / name)
        told = pq.read_table(settings.out / "predictions" / f"{name}.parquet").to_pydict()
        rows = np.array([examples.image_ids.index(image_id) for image_id in told["image_id"]])
        np.testing.assert_allclose(predict_logits(model, inputs, rows, 8), np.array(told["logits"]), atol=1e-4)
