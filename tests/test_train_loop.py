"""train/loop.py: what is promised of the loop, on features small enough to see through."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from builders.errors import UserError
from train.backbones import BackboneConfig, ImageBackbone, TextBackbone
from train.config import TrainConfig
from train.data import Split
from train.inputs import CachedInputs, LiveInputs
from train.loop import batches, fit, lr_factor, measure_scaling, predict_logits
from train.model import FusionModel
from train.pixels import PixelConfig
from train.texts import TokenisedTexts

pytestmark = pytest.mark.usefixtures("one_thread")

N, DIM, CLASSES = 90, 6, ("macule", "papule", "plaque")
PIXELS = PixelConfig(
    resize="exact", resize_px=(8, 8), crop_px=(8, 8), resample=2, rescale_factor=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
CPU = torch.device("cpu")


class Patches(torch.nn.Module):
    """A vision encoder of four tokens: one linear layer over quarters of the image."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(48, DIM)

    def forward(self, pixel_values):
        quarters = torch.nn.functional.unfold(pixel_values, 4, stride=4).transpose(1, 2)
        return SimpleNamespace(last_hidden_state=self.project(quarters))


class Words(torch.nn.Module):
    """A text encoder: an embedding."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(10, DIM)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.embed(input_ids))


def towers():
    config = BackboneConfig(source="x", revision=None, architecture="X", pooling="mean", skips_first=False, dim=DIM)
    return ImageBackbone(Patches(), config, PIXELS), TextBackbone(Words(), config, None)


def make_model(name="concat", seed=0):
    torch.manual_seed(seed)
    return FusionModel(name, CLASSES, *towers())


LABELS = np.arange(N) % 3
SPLIT = Split(train=np.arange(0, 60), validation=np.arange(60, 75), test=np.arange(75, N))


@pytest.fixture
def cached():
    """Features that tell the class: image means differ, and so do words; with padding and one row without text."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(N, 4, DIM)).astype(np.float32) + 100 * np.eye(3, DIM)[LABELS][:, None].astype(np.float32)
    text = rng.normal(size=(N, 5, DIM)).astype(np.float32)
    mask = np.arange(5) < rng.integers(1, 6, N)[:, None]
    mask[0] = False
    return CachedInputs((image, image.mean(axis=1)), (text, text.mean(axis=1)), mask, CPU)


@pytest.fixture
def live():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (N, 8, 8, 3)).astype(np.uint8)
    pixels[np.arange(N), :, :, LABELS] += 150
    ids = np.stack([LABELS + 1, rng.integers(4, 10, N), np.zeros(N, dtype=np.int64)], axis=1)
    return LiveInputs(pixels, TokenisedTexts(ids, ids > 0, 0), CPU, is_augmented=True)


def config(tmp_path, **options):
    return TrainConfig(dataset="x", out=tmp_path, **{"epochs": 6, "batch_size": 16, "lr": 0.05, **options})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_was_kept_in_a_file_is_read_to_the_bit_as_far_as_the_longest_text_of_the_batch(cached, tmp_path, dtype):
    kept = []
    for number, (tokens, pooled) in enumerate((cached.image, cached.text)):
        np.save(tmp_path / f"{number}.npy", tokens.astype(dtype))
        kept.append((np.load(tmp_path / f"{number}.npy", mmap_mode="r"), pooled))
    inputs = CachedInputs(*kept, cached.text_mask, CPU)
    rows = np.array([7, 0, 7, 3])
    length = int(cached.text_mask[rows].sum(axis=1).max())
    read = inputs.features(make_model("attention_pooling"), rows)
    for tokens, expected in ((read.image_tokens, kept[0][0][rows]), (read.text_tokens, kept[1][0][rows, :length])):
        assert tokens.dtype == torch.float32
        assert (tokens.numpy() == expected.astype(np.float32)).all()
    assert (read.text_mask.numpy() == cached.text_mask[rows, :length]).all()
    unread = inputs.features(make_model("concat"), rows)
    assert (unread.image_tokens.shape, unread.text_tokens.shape) == ((4, 4, 0), (4, length, 0))
    assert (unread.text_pooled.numpy() == cached.text[1][rows]).all()


@pytest.mark.parametrize("name", ["image_only", "concat", "gating", "dual_film", "attention_pooling"])
def test_heads_learn_what_frozen_features_tell(cached, tmp_path, name):
    model = make_model(name)
    before = {key: tensor.clone() for key, tensor in model.image.state_dict().items()}
    fitted = fit(model, cached, LABELS, SPLIT, config(tmp_path, is_frozen=True), 0, lambda _: None)
    logits = predict_logits(model, cached, SPLIT.test, 4)
    assert fitted.best.validation_macro_f1 == 1.0
    assert (logits.argmax(axis=1) == LABELS[SPLIT.test]).all()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.image.state_dict().items())


@pytest.mark.parametrize("name", ["text_only", "image_only", "attention_pooling"])
def test_fine_tuning_changes_the_backbones_that_the_model_uses(live, tmp_path, name):
    model = make_model(name)
    before = [p.clone() for p in model.parameters()]
    options = {"image_lr": 0.01, "text_lr": 0.01}
    fit(model, live, LABELS, SPLIT, config(tmp_path, **options), 0, lambda _: None)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert (predict_logits(model, live, SPLIT.test, 4).argmax(axis=1) == LABELS[SPLIT.test]).mean() > 0.9


def weights_after(inputs, tmp_path, seed, **options):
    model = make_model("attention_pooling")
    fit(model, inputs, LABELS, SPLIT, config(tmp_path, **options), seed, lambda _: None)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(live, tmp_path):
    first = weights_after(live, tmp_path, 0)
    assert torch.equal(first, weights_after(live, tmp_path, 0))
    assert not torch.equal(first, weights_after(live, tmp_path, 1))


def test_the_model_ends_with_the_weights_of_its_best_epoch(cached, tmp_path):
    model = make_model("gating")
    settings = config(tmp_path, is_frozen=True, lr=0.3, epochs=8)
    fitted = fit(model, cached, LABELS, SPLIT, settings, 0, lambda _: None)
    logits = torch.from_numpy(predict_logits(model, cached, SPLIT.validation, 16))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[SPLIT.validation]))
    assert float(loss) == pytest.approx(fitted.best.validation_loss, rel=1e-5)
    best = max(fitted.history, key=lambda epoch: (epoch.validation_macro_f1, -epoch.validation_loss))
    assert fitted.best == best


def test_test_rows_have_no_influence_on_the_fit(cached, tmp_path):
    def fitted_weights(test_label):
        labels = LABELS.copy()
        labels[SPLIT.test] = test_label  # a canary: would change anything fitted on it
        cached.image[0][SPLIT.test] += test_label
        model = make_model()
        fit(model, cached, labels, SPLIT, config(tmp_path, is_frozen=True), 0, lambda _: None)
        return model.state_dict()

    first, second = fitted_weights(0), fitted_weights(2)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_permuting_rows_permutes_predictions_and_the_batch_size_changes_nothing(cached, live):
    for inputs in (cached, live):
        model = make_model("attention_pooling")
        order = np.random.default_rng(0).permutation(SPLIT.test)
        whole = predict_logits(model, inputs, SPLIT.test, 32)
        shuffled = predict_logits(model, inputs, order, 4)
        np.testing.assert_allclose(shuffled[np.argsort(order)], whole, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run(cached, tmp_path):
    cached.image[1][7] = np.nan
    with pytest.raises(UserError) as raised:
        fit(make_model(), cached, LABELS, SPLIT, config(tmp_path, is_frozen=True), 3, lambda _: None)
    assert str(raised.value) == (
        "the loss of concat became nan in epoch 1 (seed 3, lr 0.05)\n"
        "  fix: lower --lr, and --image-lr and --text-lr when fine-tuning"
    )


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    first, second = (batches(SPLIT.train, 16, 0, epoch) for epoch in (0, 1))
    assert sorted(np.concatenate(first).tolist()) == SPLIT.train.tolist()
    assert [len(batch) for batch in first] == [16, 16, 16, 12]
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert all(np.array_equal(a, b) for a, b in zip(first, batches(SPLIT.train, 16, 0, 0), strict=True))


def test_the_learning_rate_warms_up_and_then_falls_to_zero(tmp_path):
    factors = [lr_factor(step, 100, config(tmp_path, warmup_fraction=0.1)) for step in range(101)]
    assert max(factors) == factors[10] == 1.0
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[0] > 0
    assert factors[100] == pytest.approx(0)


def test_scaling_is_measured_on_train_rows_and_real_tokens_only(cached):
    model = make_model("attention_pooling")
    measure_scaling(model, cached, SPLIT.train, 16)
    real = cached.text[0][SPLIT.train][cached.text_mask[SPLIT.train]]
    with_text = cached.text[1][SPLIT.train][cached.text_mask[SPLIT.train].any(axis=1)]
    for name, values in (
        ("image_tokens", cached.image[0][SPLIT.train].reshape(-1, DIM)),
        ("image_pooled", cached.image[1][SPLIT.train]),
        ("text_tokens", real),
        ("text_pooled", with_text),
    ):
        np.testing.assert_allclose(model.scaling[name].mean.numpy(), values.mean(axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.scaling[name].sd.numpy(), values.std(axis=0), rtol=1e-3, atol=1e-4)


def test_a_description_that_is_missing_weighs_nothing_after_scaling(cached):
    model = make_model("concat")
    measure_scaling(model, cached, SPLIT.train, 16)
    cached.text[1][0] = 1e6  # row 0 has no text
    features = cached.features(model, np.array([0]))
    seen = []
    model.fusion.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(features)
    assert (seen[0].text_pooled == 0).all()
