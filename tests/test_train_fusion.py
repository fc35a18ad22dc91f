"""train/fusion: one contract for every entry, and each entry's numbers computed again in numpy."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, install_import_hook

NAMES = ["attention_pooling", "concat", "dual_film", "gating", "image_only", "text_only"]
POOLED = ("image_pooled", "text_pooled")


@pytest.fixture(scope="module")
def checked():
    """`train.fusion` and `train.features`, imported anew with every shape annotation switched into a check."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "train"}
    with install_import_hook("train", "beartype.beartype"):
        fusion, features = importlib.import_module("train.fusion"), importlib.import_module("train.features")
    yield fusion, features
    for name in list(sys.modules):
        if name.split(".")[0] == "train":
            del sys.modules[name]
    sys.modules.update(before)


def make(checked, name, batch=3, image_dim=4, text_dim=6, n_image=5, n_text=7, n_classes=3, seed=0):
    """A fusion with every parameter drawn at random (zero-initialised ones too), and features with padded texts."""
    fusion_module, feature_module = checked
    torch.manual_seed(seed)
    fusion = fusion_module.FUSIONS[name](image_dim, text_dim, n_classes).eval()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    lengths = torch.randint(1, n_text + 1, (batch,))
    mask = torch.arange(n_text) < lengths[:, None]
    features = feature_module.Features(
        image_tokens=torch.randn(batch, n_image, image_dim),
        image_pooled=torch.randn(batch, image_dim),
        text_tokens=torch.randn(batch, n_text, text_dim),
        text_pooled=torch.randn(batch, text_dim),
        text_mask=mask,
    )
    return fusion, features


def rows_of(features, rows):
    return replace(features, **{name: getattr(features, name)[rows] for name in features.__slots__})


def test_the_names_are_those_of_the_papers_table(checked):
    assert sorted(checked[0].FUSIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 4),
    image_dim=st.integers(1, 6),
    text_dim=st.integers(1, 6),
    n_image=st.integers(1, 5),
    n_text=st.integers(1, 5),
    n_classes=st.integers(2, 4),
)
def test_each_row_depends_on_its_own_inputs_only(checked, name, batch, image_dim, text_dim, n_image, n_text, n_classes):
    fusion, features = make(checked, name, batch, image_dim, text_dim, n_image, n_text, n_classes)
    together = fusion(features)
    alone = torch.cat([fusion(rows_of(features, slice(i, i + 1))) for i in range(batch)])
    assert together.shape == (batch, n_classes)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter_from_its_own_initialisation(checked, name):
    _, features = make(checked, name)
    fusion = checked[0].FUSIONS[name](4, 6, 3)
    torch.nn.functional.cross_entropy(fusion(features), torch.tensor([0, 1, 2])).backward()
    for parameter_name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_what_a_fusion_says_that_it_does_not_use_has_no_influence(checked, name):
    fusion, features = make(checked, name)
    kind = checked[0].FUSIONS[name]
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
def test_padding_has_no_influence_and_gets_no_gradient(checked, name):
    fusion, features = make(checked, name)
    noisy = features.text_tokens.masked_fill(~features.text_mask.unsqueeze(-1), 1e4).requires_grad_(True)
    logits = fusion(replace(features, text_tokens=noisy))
    torch.testing.assert_close(logits, fusion(features), rtol=0, atol=0)
    logits.square().sum().backward()
    if noisy.grad is not None:
        assert torch.equal(noisy.grad[~features.text_mask], torch.zeros_like(noisy.grad[~features.text_mask]))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_any_text_gives_numbers(checked, name):
    fusion, features = make(checked, name)
    empty = replace(
        features,
        text_mask=torch.zeros_like(features.text_mask),
        text_tokens=torch.zeros_like(features.text_tokens),
        text_pooled=torch.zeros_like(features.text_pooled),
    )
    assert torch.isfinite(fusion(empty)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_counted(checked, name):
    fusion, _ = make(checked, name)
    image, text, classes = 4, 6, 3
    both = (image + text) * classes + classes
    expected = {
        "text_only": text * classes + classes,
        "image_only": image * classes + classes,
        "concat": both,
        "gating": (image + text) ** 2 + (image + text) + both,
        "dual_film": 2 * text * (image + 1) + 2 * image * (text + 1) + both,
        "attention_pooling": image + text + both,
    }
    assert fusion.n_parameters == expected[name]


def test_wrong_shapes_are_caught_by_the_annotations(checked):
    fusion, features = make(checked, "concat")
    with pytest.raises(TypeCheckError, match="image_pooled"):
        fusion(replace(features, image_pooled=torch.randn(2, 4)))


# Independent re-computation, one row at a time, in numpy.


def numpy_weights(fusion):
    return {name: parameter.detach().double().numpy() for name, parameter in fusion.named_parameters()}


def numpy_logits(name, weights, v, t, image_tokens, text_tokens, mask):
    def softmax(scores):
        e = np.exp(scores - scores.max())
        return e / e.sum()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    if name == "text_only":
        fused = t
    elif name == "image_only":
        fused = v
    elif name == "concat":
        fused = np.concatenate([v, t])
    elif name == "gating":
        both = np.concatenate([v, t])
        fused = sigmoid(weights["gate.weight"] @ both + weights["gate.bias"]) * both
    elif name == "dual_film":
        g_t, b_t = np.split(weights["from_image.weight"] @ v + weights["from_image.bias"], 2)
        g_v, b_v = np.split(weights["from_text.weight"] @ t + weights["from_text.bias"], 2)
        fused = np.concatenate([v * (1 + g_v) + b_v, t * (1 + g_t) + b_t])
    else:
        real = text_tokens[mask]
        pooled_v = softmax(image_tokens @ weights["image_score.weight"][0]) @ image_tokens
        pooled_t = (
            softmax(real @ weights["text_score.weight"][0]) @ real if len(real) else np.zeros(text_tokens.shape[1])
        )
        fused = np.concatenate([pooled_v, pooled_t])
    return weights["classify.weight"] @ fused + weights["classify.bias"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_an_independent_computation(checked, name, seed):
    fusion, features = make(checked, name, batch=4, seed=seed)
    features.text_mask[0] = seed > 0  # with seed 0, a row without text
    fields = (getattr(features, field).double().numpy() for field in ("image_pooled", "text_pooled"))
    tokens = (getattr(features, field).double().numpy() for field in ("image_tokens", "text_tokens"))
    rows = zip(*fields, *tokens, features.text_mask.numpy(), strict=True)
    expected = np.stack([numpy_logits(name, numpy_weights(fusion), *row) for row in rows])
    np.testing.assert_allclose(fusion(features).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


# Attention pooling and dual FiLM make promises of their own.


def test_attention_weights_are_a_distribution_over_real_tokens_and_exactly_zero_on_padding(checked):
    fusion, features = make(checked, "attention_pooling")
    features.text_mask[0] = False
    image, text = fusion.attention(features)
    torch.testing.assert_close(image.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(text.sum(dim=1), torch.tensor([0.0, 1.0, 1.0]))
    assert (text[~features.text_mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_weighs_nothing_in_any_precision(checked, dtype):
    masked_softmax = importlib.import_module("train.fusion.attention_pooling").masked_softmax
    scores = torch.tensor([[1.0, 60000.0], [-60000.0, 60000.0], [0.0, 0.0]], dtype=dtype)
    mask = torch.tensor([[True, False], [True, False], [False, False]])
    assert masked_softmax(scores, mask).tolist() == [[1, 0], [1, 0], [0, 0]]


def test_dual_film_starts_as_concat(checked):
    _, features = make(checked, "concat")
    torch.manual_seed(7)
    concat = checked[0].FUSIONS["concat"](4, 6, 3)
    torch.manual_seed(7)
    dual_film = checked[0].FUSIONS["dual_film"](4, 6, 3)
    torch.testing.assert_close(dual_film(features), concat(features))


def test_attention_pooling_starts_as_the_mean_over_tokens(checked):
    _, features = make(checked, "attention_pooling")
    image, text = checked[0].FUSIONS["attention_pooling"](4, 6, 3).attention(features)
    torch.testing.assert_close(image, torch.full((3, 5), 1 / 5))
    torch.testing.assert_close(text, features.text_mask / features.text_mask.sum(dim=1, keepdim=True))
