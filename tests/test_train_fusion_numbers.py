"""train/fusion: each entry's numbers computed again in numpy, one row at a time, on real tokens only, by its formula.

Attention is spelled out head by head with keys and values of every token; the low-rank tensor is built in full.
"""

from itertools import product
from math import erf, sqrt

import numpy as np

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
    """The last layer, behind a hidden one where the weights hold one."""
    if f"{name}.0.weight" not in w:
        return linear(w, name, x)
    return linear(w, f"{name}.3", gelu(linear(w, f"{name}.0", x)))


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
