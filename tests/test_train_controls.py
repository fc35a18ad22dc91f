"""train/controls: each control changes one thing, the same way in train, validation and test, and nothing else."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from builders.class_terms import MASK
from train.backbones import BackboneConfig, ImageBackbone, TextBackbone
from train.config import TrainConfig
from train.controls import CONTROLS
from train.controls.emap import different_texts, emap_logits, reference_rows
from train.controls.setting import Setting, other_text, texts_of
from train.controls.shuffled import exchanged
from train.data import Examples, Split
from train.features import Features
from train.inputs import CachedInputs, LiveInputs, cache_text_features
from train.loop import fit, predict_logits
from train.pixels import PixelConfig
from train.texts import tokenise

pytestmark = pytest.mark.usefixtures("one_thread")

N, DIM, CLASSES = 48, 6, ("acne", "psoriasis", "plaque")
LABELS = np.arange(N) % 3
SPLIT = Split(train=np.arange(0, 24), validation=np.arange(24, 34), test=np.arange(34, 46))  # two rows are in none
PIXELS = PixelConfig(
    resize="exact", resize_px=(8, 8), crop_px=(8, 8), resample=2, rescale_factor=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
CPU = torch.device("cpu")
TEXTS = [f"{CLASSES[label]} w{i % 7} w{i % 5}" + " w0" * (i % 3) if i else "" for i, label in enumerate(LABELS)]
BY_TEXT = sorted(
    {"shuffled_text", "shuffled_text_within_class", "empty_text", "constant_text", "random_text", "masked_text"}
)


class Patches(torch.nn.Module):
    """A vision encoder of four tokens."""

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
        self.embed = torch.nn.Embedding(50, DIM)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.embed(input_ids))


class Tokenizer:
    """A number per word, the same each time."""

    model_max_length, pad_token_id = 100, 0

    def num_special_tokens_to_add(self):
        return 0

    def __call__(self, texts, truncation=False, max_length=None, verbose=True):
        return {"input_ids": [[1 + sum(map(ord, word)) % 49 for word in text.split()][:max_length] for text in texts]}


@pytest.fixture(params=["cached", "live"])
def setting(request, tmp_path):
    """A function that gives the setting of a run: with cached features, or with encoders that are trained."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = BackboneConfig(source="x", revision=None, architecture="X", pooling="mean", skips_first=False, dim=DIM)
    image, text = ImageBackbone(Patches(), config, PIXELS), TextBackbone(Words(), config, Tokenizer())
    pixels = rng.integers(0, 255, (N, 8, 8, 3)).astype(np.uint8)

    def make(model="attention_pooling", seed=0, texts=TEXTS):
        examples = Examples(
            image_ids=[str(i) for i in range(N)],
            image_sha256s=[str(i) for i in range(N)],
            labels=LABELS,
            class_names=CLASSES,
            texts=texts,
            groups=[str(i) for i in range(N)],
            splits={},
            read_image=None,
            n_without_text=1,
        )
        tokens = tokenise(Tokenizer(), texts, 20)
        if request.param == "live":
            inputs = LiveInputs(pixels, tokens, CPU, is_augmented=True)
        else:
            with torch.inference_mode():
                seen = image(torch.from_numpy(pixels))
            read = cache_text_features(text, tokens, tmp_path / "cache", lambda _: None)
            inputs = CachedInputs((seen.tokens.numpy(), seen.pooled.numpy()), read, tokens.mask, CPU)
        options = {"is_frozen": request.param == "cached", "epochs": 2, "batch_size": 8, "max_text_tokens": 20}
        settings = TrainConfig(dataset="d", out=tmp_path, **options)
        console = Console(file=io.StringIO())
        return Setting(model, seed, examples, SPLIT, image, text, inputs, settings, CPU, console)

    return make


@torch.inference_mode()
def seen(inputs, model, rows):
    return inputs.features(model, np.asarray(rows))


def texts_equal(one, other, i=0, j=0):
    return torch.equal(one.text_pooled[i], other.text_pooled[j]) and torch.equal(
        one.text_tokens[i][one.text_mask[i]], other.text_tokens[j][other.text_mask[j]]
    )


@pytest.mark.parametrize("model", ["concat", "attention_pooling"])
@pytest.mark.parametrize("name", BY_TEXT)
def test_a_control_of_the_text_leaves_the_images_as_they_are_and_can_be_trained(setting, name, model):
    start = setting(model)
    before = seen(start.inputs, start.build(start.image, start.text), range(N))
    controlled = CONTROLS[name](start)
    after = seen(controlled.inputs, controlled.model, range(N))
    assert torch.equal(before.image_pooled, after.image_pooled)
    assert torch.equal(before.image_tokens, after.image_tokens)
    again = seen(start.inputs, start.build(start.image, start.text), range(N))
    assert torch.equal(before.text_pooled, again.text_pooled), "the run's own inputs must not change"
    fit(controlled.model, controlled.inputs, LABELS, SPLIT, start.config, 0, lambda _: None)
    assert np.isfinite(predict_logits(controlled.model, controlled.inputs, SPLIT.test, 8)).all()


@pytest.mark.parametrize("classes", [np.zeros(N, dtype=int), LABELS], ids=["global", "within class"])
def test_texts_are_exchanged_within_split_and_class_each_used_once_and_never_ones_own(classes):
    row_of = exchanged(SPLIT, classes, seed=3)
    for rows in (SPLIT.train, SPLIT.validation, SPLIT.test):
        assert sorted(row_of[rows]) == sorted(rows)
        assert (row_of[rows] != rows).all()
        assert (classes[row_of[rows]] == classes[rows]).all()
    assert (row_of[46:] == [46, 47]).all()
    assert (row_of == exchanged(SPLIT, classes, seed=3)).all()
    assert (row_of != exchanged(SPLIT, classes, seed=4)).any()


def test_a_class_with_one_image_keeps_its_text():
    row_of = exchanged(Split(np.arange(3), np.arange(3, 4), np.arange(4, 5)), np.array([0, 0, 1, 0, 1]), seed=0)
    assert list(row_of) == [1, 0, 2, 3, 4]


def test_a_shuffled_row_reads_the_description_of_the_other(setting):
    start = setting(seed=5)
    controlled = CONTROLS["shuffled_text_within_class"](start)
    row_of = exchanged(SPLIT, LABELS, 5)
    for row in (0, 7, 30, 40, 47):
        mine = seen(controlled.inputs, controlled.model, [row])
        assert texts_equal(mine, seen(start.inputs, controlled.model, [row_of[row]]))


def test_empty_text_has_no_token_and_constant_text_the_same_for_all(setting):
    empty = CONTROLS["empty_text"](setting())
    features = seen(empty.inputs, empty.model, range(N))
    assert not features.text_mask.any()
    assert not features.text_pooled.any()
    constant = CONTROLS["constant_text"](setting())
    features = seen(constant.inputs, constant.model, range(N))
    assert features.text_mask.any(dim=1).all()
    assert all(texts_equal(features, features, 0, row) for row in range(N))


def test_random_text_is_a_function_of_seed_and_row(setting):
    first, again, other = (CONTROLS["random_text"](setting(seed=seed)) for seed in (1, 1, 2))
    values = seen(first.inputs, first.model, range(N)).text_pooled
    assert torch.equal(values, seen(again.inputs, again.model, range(N)).text_pooled)
    assert not torch.equal(values, seen(other.inputs, other.model, range(N)).text_pooled)
    assert len(values.unique(dim=0)) == N
    assert torch.equal(values[5:6], seen(first.inputs, first.model, [5]).text_pooled)


@pytest.mark.parametrize("name", ["empty_text", "constant_text", "random_text", "matched_image_only"])
def test_a_control_without_content_does_not_read_the_descriptions(setting, name):
    answers = []
    for texts in (TEXTS, TEXTS[::-1]):
        start = setting(texts=texts)
        controlled = CONTROLS[name](start)
        answers.append(predict_logits(controlled.model, controlled.inputs, SPLIT.test, 8))
    assert np.array_equal(*answers)


def test_masked_text_is_the_description_without_the_names_of_classes(setting):
    start = setting()
    controlled = CONTROLS["masked_text"](start)
    masked = [text.replace("acne", MASK).replace("psoriasis", MASK).replace("plaque", MASK) for text in TEXTS]
    written = setting(texts=masked)
    for row in (0, 1, 2, 3, 40):
        assert texts_equal(
            seen(controlled.inputs, controlled.model, [row]), seen(written.inputs, controlled.model, [row])
        )
    assert f"47 of {N} descriptions name a class" in start.console.file.getvalue()


@pytest.mark.parametrize("model", ["concat", "gmu", "cross_attention"])
@pytest.mark.parametrize("hidden_dims", [(), (16,), (16, 8)])
def test_the_matched_image_model_is_as_large_as_the_fusion_and_reads_no_text(setting, model, hidden_dims):
    start = setting(model)
    start = replace(start, config=start.config.model_copy(update={"hidden_dims": hidden_dims, "dropout": 0.5}))
    matched = CONTROLS["matched_image_only"](start).model
    wanted = start.build(start.image, start.text).fusion.n_parameters
    assert matched.text is None
    widths = [layer.out_features for layer in matched.fusion.modules() if isinstance(layer, torch.nn.Linear)]
    if len(hidden_dims) < 2:
        assert abs(matched.fusion.n_parameters - wanted) <= (DIM + 1 + len(CLASSES)) / 2
    else:
        assert widths[0] == pytest.approx(2 * widths[1], abs=1)
        assert matched.fusion.n_parameters == pytest.approx(wanted, abs=DIM + widths[0] + widths[1])
    # What regularises image only regularises it too.
    plain = start.build(start.image, None, model="image_only").fusion
    assert len(widths) == max(1, len(hidden_dims)) + 1
    dropouts = [
        [layer.p for layer in head.modules() if isinstance(layer, torch.nn.Dropout) and layer.p]
        for head in (matched.fusion, plain)
    ]
    assert dropouts[0] == dropouts[1] == [0.5] * len(hidden_dims)


def grid(model, inputs, rows):
    """f(v_i, t_j) for all i and j, each pair by itself: [i][j] is a vector of logits."""

    def pair(i, j):
        image, text = seen(inputs, model, [i]), seen(inputs, model, [j])
        both = replace(image, text_tokens=text.text_tokens, text_pooled=text.text_pooled, text_mask=text.text_mask)
        with torch.inference_mode():
            return model(both)[0].double().numpy()

    return np.array([[pair(i, j) for j in rows] for i in rows])


@pytest.mark.parametrize("name", ["gmu", "attention_pooling", "cross_attention"])
def test_emap_is_its_formula_written_out(setting, name):
    start = setting(name)
    model = start.build(start.image, start.text).eval()
    f = grid(model, start.inputs, SPLIT.test)
    expected = f.mean(axis=1) + f.mean(axis=0) - f.mean(axis=(0, 1))
    found = emap_logits(model, start.inputs, SPLIT.test, SPLIT.test, 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    some = SPLIT.test[[1, 4, 6, 11]]
    at = np.array([1, 4, 6, 11])
    expected = f[:, at].mean(axis=1) + f[at].mean(axis=0) - f[np.ix_(at, at)].mean(axis=(0, 1))
    np.testing.assert_allclose(emap_logits(model, start.inputs, SPLIT.test, some, 5), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gmu", "cross_attention"])
def test_emap_where_rows_share_texts(setting, name):
    start = setting(name)
    rows = SPLIT.test
    shared = np.arange(N)
    shared[rows] = rows[[0, 1, 0, 2, 0, 1, 6, 0, 2, 0, 10, 0]]  # five texts for twelve rows
    inputs = other_text(start, texts_of(start.inputs), shared)
    model = start.build(start.image, start.text).eval()
    f = grid(model, inputs, rows)
    found = emap_logits(model, inputs, rows, rows, 5)
    np.testing.assert_allclose(found, f.mean(axis=1) + f.mean(axis=0) - f.mean(axis=(0, 1)), atol=1e-5)


def test_texts_are_the_same_where_words_vectors_and_padding_are():
    generator = torch.Generator().manual_seed(0)
    pooled, tokens = torch.randn(3, 2, generator=generator), torch.randn(3, 4, 2, generator=generator)
    numbers = [0, 1, 0, 2, 1, 0]
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[5, 3] = False
    for dtype in (torch.float32, torch.bfloat16):
        nothing = torch.zeros(6, 0)
        texts = Features(nothing, nothing, tokens[numbers].to(dtype), pooled[numbers].to(dtype), mask)
        first, text_of = different_texts(texts)
        assert first.tolist() == [0, 1, 3, 5]
        assert text_of.tolist() == [0, 1, 0, 2, 1, 3]


@pytest.mark.parametrize("name", ["concat", "late_logits"])
def test_emap_of_a_model_that_only_adds_is_the_model(setting, name):
    start = setting(name)
    model = start.build(start.image, start.text)
    fit(model, start.inputs, LABELS, SPLIT, start.config, 0, lambda _: None)
    found = emap_logits(model, start.inputs, SPLIT.test, SPLIT.test, 4)
    np.testing.assert_allclose(found, predict_logits(model, start.inputs, SPLIT.test, 4), atol=1e-4)


def test_emap_meets_all_rows_of_a_test_set_of_dermnets_size_and_a_sample_of_a_larger_one():
    assert len(reference_rows(np.arange(4002), uses_tokens=False)) == 4002
    assert len(reference_rows(np.arange(9000), uses_tokens=False)) == 2048
    sample = reference_rows(np.arange(4002), uses_tokens=True)
    assert len(set(sample.tolist())) == 64
    assert np.array_equal(sample, reference_rows(np.arange(4002), uses_tokens=True))
