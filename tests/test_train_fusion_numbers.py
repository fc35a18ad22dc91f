"""train/fusion: each entry's numbers computed again in numpy, one row at a time, on real tokens only, by its formula.

Attention is spelled out head by head with keys and values of every token; the low-rank tensor is built in full.
"""

from itertools import product
from math import erf, sqrt

import numpy as np
import pytest
import torch

from train.features import Features
from train.fusion import FUSIONS

IMAGE_DIM, TEXT_DIM, N_CLASSES, WIDTH, N_HEADS = 4, 6, 3, 256, 4


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(w, name, x):
    """`x W^T + b`, without `b` where there is none; `x` is a vector or one vector per row."""
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def gelu(x):
    return x * (1 + np.vectorize(erf, otypes=[float])(x / sqrt(2))) / 2  # the exact one


def head(w, name, x):
    """The last layer, behind as many hidden ones as the weights hold; each counts three, with GELU and dropout."""
    if f"{name}.0.weight" not in w:
        return linear(w, name, x)
    n_hidden = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in w) - 1
    return linear(w, f"{name}.{3 * n_hidden}", hidden(w, name, x, n_hidden))


def hidden(w, name, x, n_hidden):
    for i in range(n_hidden):
        x = gelu(linear(w, f"{name}.{3 * i}", x))
    return x


def layer_norm(w, name, rows):
    """Each row by itself; torch's default epsilon."""
    out = [(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in rows]
    return np.array(out).reshape(rows.shape) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, queries, context):
    """Multi-head attention, one query and one head at a time; nothing to read gives zeros."""
    q, k, v = (linear(w, f"{name}.{part}", x) for part, x in (("query", queries), ("key", context), ("value", context)))
    read = np.zeros((len(queries), WIDTH))
    size = WIDTH // N_HEADS
    for i, head in product(range(len(queries) if len(context) else 0), range(N_HEADS)):
        part = slice(head * size, (head + 1) * size)
        read[i, part] = softmax(k[:, part] @ q[i, part] / sqrt(size)) @ v[:, part]
    return linear(w, f"{name}.out", read)


def feed_forward(w, name, rows):
    hidden = linear(w, f"{name}.1", layer_norm(w, f"{name}.0", rows))
    return linear(w, f"{name}.3", gelu(hidden))


def mean_of(rows):
    return rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])


# One function per fusion: weights, pooled image, pooled text, image tokens, real text tokens -> logits.


def text_only(w, v, t, patches, words):
    return head(w, "classify", t)


def image_only(w, v, t, patches, words):
    return head(w, "classify", v)


def concat(w, v, t, patches, words):
    return head(w, "classify", np.concatenate([v, t]))


def gating(w, v, t, patches, words):
    both = np.concatenate([v, t])
    return head(w, "classify", sigmoid(linear(w, "gate", both)) * both)


def dual_film(w, v, t, patches, words):
    g_t, b_t = np.split(linear(w, "from_image", v), 2)
    g_v, b_v = np.split(linear(w, "from_text", t), 2)
    return head(w, "classify", np.concatenate([v * (1 + g_v) + b_v, t * (1 + g_t) + b_t]))


def attention_pooling(w, v, t, patches, words):
    pooled = [softmax(patches @ w["image_score.weight"][0]) @ patches]
    pooled.append(softmax(words @ w["text_score.weight"][0]) @ words if len(words) else np.zeros(TEXT_DIM))
    return head(w, "classify", np.concatenate(pooled))


def gmu(w, v, t, patches, words):
    hidden = []
    for i in range(max(IMAGE_DIM, TEXT_DIM)):
        z = sigmoid(w["gate.weight"][i, :IMAGE_DIM] @ v + w["gate.weight"][i, IMAGE_DIM:] @ t)
        hidden.append(z * np.tanh(w["from_image.weight"][i] @ v) + (1 - z) * np.tanh(w["from_text.weight"][i] @ t))
    return head(w, "classify", np.array(hidden))


def late_logits(w, v, t, patches, words):
    image, text = head(w, "classify_image", v), head(w, "classify_text", t)
    return text + sigmoid(w["image_weight"]) * (image - text) if len(words) else image


def low_rank_tensor(w, v, t, patches, words):
    n_hidden = sum(key.startswith("image_hidden.") and key.endswith(".weight") for key in w)
    v, t = hidden(w, "image_hidden", v, n_hidden), hidden(w, "text_hidden", t, n_hidden)
    full = np.zeros((1 + len(v), 1 + len(t), N_CLASSES))
    for r, c in product(range(8), range(N_CLASSES)):
        full[:, :, c] += w["rank_weights"][r] * np.outer(w["image_factors"][r, :, c], w["text_factors"][r, :, c])
    return np.tensordot(np.outer([1, *v], [1, *t]), full, axes=2) + w["bias"]


def learned_query_pooling(w, v, t, patches, words):
    pooled = []
    for name, tokens in (("pool_image", patches), ("pool_text", words)):
        keys, values = (np.split(linear(w, f"{name}.{part}", tokens), N_HEADS, axis=1) for part in ("key", "value"))
        for number, query in enumerate(w[f"{name}.query"]):
            weights = softmax(keys[number] @ query / sqrt(WIDTH // N_HEADS)) if len(tokens) else np.zeros(0)
            pooled.append(weights @ values[number])
    return head(w, "classify", np.concatenate(pooled))


def cross_attention(w, v, t, patches, words):
    tokens = {"image": linear(w, "project_image", patches), "text": linear(w, "project_text", words)}
    normed = {name: layer_norm(w, f"{name}_norm", tokens[name]) for name in tokens}
    means = []
    for name, other in (("image", "text"), ("text", "image")):
        x = tokens[name] + attention(w, f"{name}_reads", normed[name], normed[other])
        x = x + feed_forward(w, f"{name}_layer", x)
        means.append(mean_of(layer_norm(w, f"{name}_out_norm", x)))
    return head(w, "classify", np.concatenate(means))


def bottleneck_tokens(w, v, t, patches, words):
    tokens = {"image": linear(w, "project_image", patches), "text": linear(w, "project_text", words)}
    shared = w["bottlenecks"]
    for layer in range(2):
        told = []
        for name in ("image", "text") if len(words) else ("image",):
            x = np.concatenate([tokens[name], shared])
            normed = layer_norm(w, f"{name}_layers.{layer}.norm", x)
            x = x + attention(w, f"{name}_layers.{layer}.attention", normed, normed)
            x = x + feed_forward(w, f"{name}_layers.{layer}.feed_forward", x)
            tokens[name] = x[:-4]
            told.append(x[-4:])
        shared = sum(told) / len(told)
    means = [mean_of(layer_norm(w, f"{name}_out_norm", tokens[name])) for name in ("image", "text")]
    return head(w, "classify", np.concatenate(means))


@pytest.mark.parametrize("name", sorted(FUSIONS))
@pytest.mark.parametrize("hidden_dims", [(), (5,), (5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_an_independent_computation(name, seed, hidden_dims):
    torch.manual_seed(seed)
    fusion = FUSIONS[name](IMAGE_DIM, TEXT_DIM, N_CLASSES, hidden_dims, dropout=0.5).double().eval()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    lengths = torch.tensor([0, 1, 3, 7])  # a row without text, and one without padding
    mask = torch.arange(7) < lengths[:, None]
    image_tokens, text_tokens = torch.randn(4, 5, IMAGE_DIM).double(), torch.randn(4, 7, TEXT_DIM).double()
    v, t = torch.randn(4, IMAGE_DIM).double(), torch.randn(4, TEXT_DIM).double()
    t[0] = 0
    logits = fusion(Features(image_tokens, v, text_tokens, t, mask)).detach().numpy()

    weights = {key: parameter.detach().numpy() for key, parameter in fusion.named_parameters()}
    for i, length in enumerate(lengths):
        rows = (v[i], t[i], image_tokens[i], text_tokens[i, :length])
        expected = globals()[name](weights, *(row.numpy() for row in rows))
        np.testing.assert_allclose(logits[i], expected, rtol=1e-9, atol=1e-9)
