"""train/fusion: one contract for every entry; what some entries promise beside it."""

import importlib
import re
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, install_import_hook
from torch.nn import functional as F
from typer.testing import CliRunner

from train.cli import app
from train.config import PAPER_MODELS, TrainConfig
from train.features import Features, Scaling
from train.fusion import FUSIONS
from train.table import PUBLISHED

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = sorted(FUSIONS)
POOLED = ("image_pooled", "text_pooled")
SIZES = {
    "batch": st.integers(1, 4),
    "image_dim": st.integers(1, 6),
    "text_dim": st.integers(1, 6),
    "n_image": st.integers(1, 5),
    "n_text": st.integers(1, 5),
    "n_classes": st.integers(2, 4),
    "seed": st.integers(0, 99),
}


@pytest.fixture(scope="module", params=[(), (5,)], ids=["linear", "hidden"])
def checked(request):
    """`train.fusion` and `train.features`, imported anew with every shape annotation switched into a check.

    `FUSIONS` makes heads without a hidden layer, and then with one.
    """
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "train"}
    with install_import_hook("train", "beartype.beartype"):
        fusion, features = importlib.import_module("train.fusion"), importlib.import_module("train.features")
    fusions = {name: partial(kind, hidden_dims=request.param) for name, kind in fusion.FUSIONS.items()}
    yield SimpleNamespace(FUSIONS=fusions, hidden_dims=request.param), features
    for name in list(sys.modules):
        if name.split(".")[0] == "train":
            del sys.modules[name]
    sys.modules.update(before)


def make(
    checked, name, batch=3, image_dim=4, text_dim=6, n_image=5, n_text=7, n_classes=3, seed=0, dtype=torch.float64
):
    """A fusion with every parameter drawn at random (zero-initialised ones too), and features with padded texts."""
    fusion_module, feature_module = checked
    torch.manual_seed(seed)
    fusion = fusion_module.FUSIONS[name](image_dim, text_dim, n_classes).eval().to(dtype)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    lengths = torch.randint(seed % 2, n_text + 1, (batch,))  # an even seed may give rows without any text
    features = feature_module.Features(
        image_tokens=torch.randn(batch, n_image, image_dim, dtype=dtype),
        image_pooled=torch.randn(batch, image_dim, dtype=dtype),
        text_tokens=torch.randn(batch, n_text, text_dim, dtype=dtype),
        text_pooled=torch.randn(batch, text_dim, dtype=dtype),
        text_mask=torch.arange(n_text) < lengths[:, None],
    )
    return fusion, features


def rows_of(features, rows):
    return replace(features, **{name: getattr(features, name)[rows] for name in features.__slots__})


def without_text(features):
    nothing = {name: torch.zeros_like(getattr(features, name)) for name in ("text_mask", "text_tokens", "text_pooled")}
    return replace(features, **nothing)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(**SIZES)
def test_each_row_depends_on_its_own_inputs_only(checked, name, batch, n_classes, **sizes):
    fusion, features = make(checked, name, batch=batch, n_classes=n_classes, **sizes)
    together = fusion(features)
    alone = torch.cat([fusion(rows_of(features, slice(i, i + 1))) for i in range(batch)])
    assert together.shape == (batch, n_classes)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(**SIZES)
def test_padding_has_no_influence_and_gets_no_gradient(checked, name, dtype, **sizes):
    fusion, features = make(checked, name, dtype=dtype, **sizes)
    mask = features.text_mask
    before = fusion(features)
    noisy = features.text_tokens.masked_fill(~mask.unsqueeze(-1), 1e4).requires_grad_(True)
    logits = fusion(replace(features, text_tokens=noisy))
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
    logits.square().sum().backward()
    if FUSIONS[name].uses_text and FUSIONS[name].uses_tokens:
        assert (noisy.grad[~mask] == 0).all()
        assert noisy.grad.isfinite().all()
    longer = replace(features, text_tokens=F.pad(features.text_tokens, (0, 0, 0, 3)), text_mask=F.pad(mask, (0, 3)))
    torch.testing.assert_close(fusion(longer), before)


@pytest.mark.parametrize("name", NAMES)
def test_padding_has_no_influence_in_mixed_precision(checked, name):
    fusion, features = make(checked, name, dtype=torch.float32)
    noisy = features.text_tokens.masked_fill(~features.text_mask.unsqueeze(-1), 1e4)
    with torch.autocast("cpu", torch.bfloat16):
        before, after = fusion(features), fusion(replace(features, text_tokens=noisy))
    assert before.isfinite().all()
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter_from_its_own_initialisation(checked, name):
    _, features = make(checked, name, seed=1, dtype=torch.float32)
    fusion = checked[0].FUSIONS[name](4, 6, 3)
    F.cross_entropy(fusion(features), torch.tensor([0, 1, 2])).backward()
    for parameter_name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_every_bit_in_training_as_in_evaluation(checked, name):
    _, features = make(checked, name, dtype=torch.float32)

    def logits(seed, is_training):
        torch.manual_seed(seed)
        return checked[0].FUSIONS[name](4, 6, 3).train(is_training)(features)

    first = logits(7, is_training=True)
    assert torch.equal(first, logits(7, is_training=True))
    assert torch.equal(first, logits(7, is_training=False))
    assert not torch.equal(first, logits(8, is_training=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_fusion_says_that_it_does_not_use_has_no_influence(checked, name):
    fusion, features = make(checked, name, seed=1)
    kind = FUSIONS[name]
    before = fusion(features)
    noise = {field: torch.randn_like(getattr(features, field)) for field in (*POOLED, "image_tokens", "text_tokens")}
    for field, values in noise.items():
        modality_is_used = kind.uses_image if field.startswith("image") else kind.uses_text
        is_used = modality_is_used and (kind.uses_tokens or field in POOLED)
        changed = fusion(replace(features, **{field: values}))
        if is_used and not (kind.uses_tokens and field in POOLED):
            assert not torch.allclose(changed, before), field
        if not is_used:
            torch.testing.assert_close(changed, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_any_text_gives_numbers_that_the_image_decides(checked, name):
    fusion, features = make(checked, name, seed=1)
    whole, empty = fusion(features), without_text(features)
    logits = fusion(empty)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in fusion.parameters())
    assert torch.allclose(logits, whole) == (not FUSIONS[name].uses_text)
    other = replace(empty, image_tokens=-features.image_tokens, image_pooled=-features.image_pooled)
    assert torch.allclose(fusion(other), logits) == (not FUSIONS[name].uses_image)
    mixed = replace(features, text_mask=features.text_mask & torch.tensor([[False], [True], [True]]))
    mixed.text_pooled[0] = 0  # as the backbones give it
    torch.testing.assert_close(fusion(mixed)[0], logits[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_counted(checked, name):
    fusion, _ = make(checked, name)
    image, text, classes, width = 4, 6, 3, 256
    hidden = sum(checked[0].hidden_dims)

    def head(dim):
        return (dim * hidden + hidden + hidden * classes + classes) if hidden else dim * classes + classes

    both, project, classify = head(image + text), (image + text + 2) * width, head(2 * width)
    ranked = (
        (image + 1 + text + 1) * hidden + 8 * 2 * (hidden + 1) * classes
        if hidden
        else 8 * (image + 1 + text + 1) * classes
    )
    norm, attention, feed_forward = 2 * width, 4 * width**2, 2 * width + 8 * width**2 + 5 * width
    expected = {
        "text_only": head(text),
        "image_only": head(image),
        "concat": both,
        "gating": (image + text) ** 2 + (image + text) + both,
        "dual_film": 2 * text * (image + 1) + 2 * image * (text + 1) + both,
        "attention_pooling": image + text + both,
        "gmu": 2 * (image + text) * text + head(text),
        "late_logits": head(image) + head(text) + 1,
        "low_rank_tensor": ranked + 8 + classes,
        "learned_query_pooling": 2 * width + 2 * (image + text) * width + classify,
        "cross_attention": project + 4 * norm + 2 * attention + 2 * feed_forward + classify,
        "bottleneck_tokens": project + 4 * width + 4 * (norm + attention + feed_forward) + 2 * norm + classify,
    }
    assert fusion.n_parameters == expected[name]


@pytest.mark.parametrize("hidden_dims", [(), (8,), (8, 8)])
@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_fit_a_few_rows(name, hidden_dims):
    torch.manual_seed(0)
    fusion = FUSIONS[name](16, 12, 3, hidden_dims, dropout=0.1)
    tokens = torch.randn(12, 5, 16), torch.randn(12, 7, 12)
    mask = torch.arange(7) < torch.arange(12)[:, None] % 7 + 1
    features = Features(tokens[0], tokens[0].mean(dim=1), tokens[1], tokens[1].mean(dim=1), mask)
    labels = torch.arange(12) % 3
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=0.01, fused=True)
    for _ in range(60):
        loss = F.cross_entropy(fusion(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert F.cross_entropy(fusion.eval()(features), labels) < 0.6  # the logarithm of 3, 1.1, is what guessing gives


@pytest.mark.parametrize("name", NAMES)
def test_additive_fusions_are_known(checked, name):
    """Where logits are a sum over the modalities, no answer to an image can depend on what a text says of it."""
    fusion, features = make(checked, name, batch=2, seed=1)
    swapped = {field: getattr(features, field).flip(0) for field in ("text_pooled", "text_tokens", "text_mask")}
    interaction = (fusion(features) - fusion(replace(features, **swapped))).sum(dim=0)
    additive = {"text_only", "image_only", "late_logits"}
    if not checked[0].hidden_dims:
        additive |= {"concat", "attention_pooling", "learned_query_pooling"}
    assert torch.allclose(interaction, torch.zeros(3).double(), atol=1e-12) == (name in additive)


def test_wrong_shapes_are_caught_by_the_annotations(checked):
    fusion, features = make(checked, "concat")
    with pytest.raises(TypeCheckError, match="image_pooled"):
        fusion(replace(features, image_pooled=torch.randn(2, 4)))


# Which names `--model` takes.


def test_all_stands_for_the_papers_rows_and_every_for_each_fusion():
    def models(*names):
        return TrainConfig(dataset="x", out="exp", models=names).models

    assert tuple(PUBLISHED) == PAPER_MODELS == tuple(FUSIONS)[:6]
    assert models() == models("all") == TrainConfig(dataset="x", out="exp").models == PAPER_MODELS
    assert models("all", "gmu", "concat") == (*PAPER_MODELS, "gmu")
    assert models("every") == tuple(FUSIONS)
    assert models("gmu") == ("gmu",)


def test_the_help_names_every_fusion():
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    assert set(FUSIONS) <= set(re.findall(r"[a-z_]+", shown))


# What some entries promise beside the contract.


@pytest.mark.parametrize("name", ["attention_pooling", "learned_query_pooling"])
def test_attention_weights_are_a_distribution_over_real_tokens_and_exactly_zero_on_padding(checked, name):
    fusion, features = make(checked, name, seed=1)
    features.text_mask[0] = False
    image, text = fusion.attention(features)
    torch.testing.assert_close(image.sum(dim=1), torch.ones(3).double())
    torch.testing.assert_close(text.sum(dim=1), torch.tensor([0.0, 1.0, 1.0]).double())
    assert ((text > 0) == features.text_mask).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_weighs_nothing_in_any_precision(checked, dtype):
    masked_softmax = importlib.import_module("train.fusion.attention_pooling").masked_softmax
    scores = torch.tensor([[1.0, 60000.0], [-60000.0, 60000.0], [0.0, 0.0]], dtype=dtype)
    mask = torch.tensor([[True, False], [True, False], [False, False]])
    assert masked_softmax(scores, mask).tolist() == [[1, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_dropout_changes_training_alone_and_needs_a_hidden_layer(name):
    torch.manual_seed(0)
    features = Features(*(torch.randn(3, *shape) for shape in ((5, 4), (4,), (7, 6), (6,))), torch.ones(3, 7) > 0)
    for hidden_dims in ((), (16,), (16, 8)):
        fusion = FUSIONS[name](4, 6, 3, hidden_dims, dropout=0.5).train()
        is_random = not torch.equal(fusion(features), fusion(features))
        assert is_random == (len(hidden_dims) > 0)
        assert torch.equal(fusion.eval()(features), fusion(features))


def test_dual_film_starts_as_concat(checked):
    _, features = make(checked, "concat", dtype=torch.float32)
    torch.manual_seed(7)
    concat = checked[0].FUSIONS["concat"](4, 6, 3)
    torch.manual_seed(7)
    dual_film = checked[0].FUSIONS["dual_film"](4, 6, 3)
    torch.testing.assert_close(dual_film(features), concat(features))


def test_attention_pooling_starts_as_the_mean_over_tokens(checked):
    _, features = make(checked, "attention_pooling", seed=1, dtype=torch.float32)
    image, text = checked[0].FUSIONS["attention_pooling"](4, 6, 3).attention(features)
    torch.testing.assert_close(image, torch.full((3, 5), 1 / 5))
    torch.testing.assert_close(text, features.text_mask / features.text_mask.sum(dim=1, keepdim=True))


UNCHECKED = (
    SimpleNamespace(FUSIONS=FUSIONS),
    SimpleNamespace(Features=Features),
)  # beartype knows Scaling of one import


def scalings(dtype=torch.float64, offset=3.0):
    """One `Scaling` per modality, for features as `make` gives them: offsets as encoders have them, scales too."""
    made = []
    for dim in (4, 6):
        scaling = Scaling(dim).to(dtype)
        scaling.mean.copy_(offset * torch.randn(dim))
        scaling.sd.copy_(torch.rand(dim) * 5 + 0.1)
        made.append(scaling)
    return made


def test_attention_pooling_scales_one_vector_as_if_it_scaled_every_token():
    fusion, features = make(UNCHECKED, "attention_pooling", seed=1)
    features.text_mask[0] = False
    image, text = scalings()
    scaled = replace(features, image_tokens=image(features.image_tokens), text_tokens=text(features.text_tokens))
    for folded, plain in zip(fusion.attention(features, image, text), fusion.attention(scaled), strict=True):
        torch.testing.assert_close(folded, plain)
    gradients = []
    for logits in (fusion(features, image, text), fusion(scaled)):
        fusion.zero_grad()
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad.clone() for parameter in fusion.parameters())])
    torch.testing.assert_close(*gradients)
    without = without_text(features)
    zeros = replace(without, image_tokens=image(without.image_tokens))
    torch.testing.assert_close(fusion(without, image, text), fusion(zeros))  # the scaling adds nothing to no text


def test_attention_pooling_keeps_its_digits_in_mixed_precision_where_features_share_an_offset():
    fusion, features = make(UNCHECKED, "attention_pooling", seed=1, dtype=torch.float32)
    image, text = scalings(torch.float32, offset=0.0)
    image.sd.fill_(1.0)
    image.mean.fill_(300.0)
    features = replace(features, image_tokens=features.image_tokens + 300)
    exact = fusion.attention(features, image, text)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = fusion.attention(features, image, text)[0]
        logits = fusion(features, image, text)
    torch.testing.assert_close(mixed, exact)
    torch.testing.assert_close(logits.float(), fusion(features, image, text), rtol=0.05, atol=0.05)


def test_late_logits_start_as_the_mean_of_two_answers_and_leave_the_image_alone_without_text(checked):
    _, features = make(checked, "late_logits", seed=1, dtype=torch.float32)
    fusion = checked[0].FUSIONS["late_logits"](4, 6, 3)
    image, text = fusion.classify_image(features.image_pooled), fusion.classify_text(features.text_pooled)
    torch.testing.assert_close(fusion(features), (image + text) / 2)
    torch.testing.assert_close(fusion(without_text(features)), image, rtol=0, atol=0)


def test_the_low_rank_tensor_trains_all_its_factors():
    fusion = FUSIONS["low_rank_tensor"](768, 768, 23)
    assert fusion.n_parameters == 283_023  # MultiBench's, of the same size, registers 31
    assert {"image_factors", "text_factors"} <= set(fusion.state_dict())


def test_with_a_gate_at_one_the_gmu_hears_the_image_alone(checked):
    fusion, features = make(checked, "gmu", seed=1)
    with torch.no_grad():
        fusion.gate.weight.fill_(100)
    positive = replace(features, image_pooled=features.image_pooled.abs(), text_pooled=features.text_pooled.abs())
    other = replace(positive, text_pooled=2 * positive.text_pooled)
    torch.testing.assert_close(fusion(positive), fusion(other), rtol=0, atol=1e-12)


def test_words_reach_the_image_through_the_bottlenecks_alone(checked):
    fusion, features = make(checked, "bottleneck_tokens", seed=1)
    with torch.no_grad():
        first = fusion.classify if not checked[0].hidden_dims else fusion.classify[0]
        first.weight[:, 256:] = 0  # only the image's mean is heard
    other = replace(features, text_tokens=torch.randn_like(features.text_tokens))
    assert not torch.allclose(fusion(features), fusion(other))
    for layer in fusion.image_layers:  # what the image reads of anything
        torch.nn.init.zeros_(layer.attention.out.weight)
    torch.testing.assert_close(fusion(features), fusion(other), rtol=0, atol=0)
