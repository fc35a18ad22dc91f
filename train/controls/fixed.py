"""Text without content: none at all, the same sentence for every image, or vectors of noise.

What a fusion gains with these, it gains without reading: by parameters, by a different pooling, or by noise that
regularises.
"""

import copy

import numpy as np

from train.backbones import TextBackbone
from train.controls.setting import Controlled, Setting, other_text, texts_of
from train.given_tower import GivenFeatures
from train.inputs import CachedInputs, Inputs, cache_text_features
from train.texts import TokenisedTexts, tokenise

SENTENCE = "A photograph of skin."


def empty_text(setting: Setting) -> Controlled:
    """No image has a description: what a fusion makes of rows without one, in training as in the test."""
    assert setting.text is not None
    dim = setting.text.config.dim
    nothing = (np.zeros((1, 1, dim), np.float32), np.zeros((1, dim), np.float32))
    texts = CachedInputs(None, nothing, np.zeros((1, 1), dtype=np.bool_), setting.device)
    row_of = np.zeros_like(setting.examples.labels)
    return Controlled(
        setting.build(setting.image, GivenFeatures(("control",), dim)), other_text(setting, texts, row_of)
    )


def constant_text(setting: Setting) -> Controlled:
    """Every image has the description `SENTENCE`.

    Pooled and scaled by its standard deviation over train, which is zero, a frozen encoder's answer becomes zero, as
    if empty; its tokens, which differ from each other, do not.
    """
    row_of = np.zeros_like(setting.examples.labels)
    texts = encoded(setting, [SENTENCE])
    return Controlled(setting.build(setting.image, setting.text), other_text(setting, texts, row_of))


def random_text(setting: Setting) -> Controlled:
    """A vector of standard normal numbers per image, by the seed, as its pooled vector and its only token."""
    assert setting.text is not None
    dim = setting.text.config.dim
    n_rows = len(setting.examples.labels)
    pooled = np.random.default_rng([setting.seed, 2]).standard_normal((n_rows, dim), dtype=np.float32)
    texts = CachedInputs(None, (pooled[:, None], pooled), np.ones((n_rows, 1), dtype=np.bool_), setting.device)
    return Controlled(
        setting.build(setting.image, GivenFeatures(("control",), dim)), other_text(setting, texts, np.arange(n_rows))
    )


def encoded(setting: Setting, descriptions: list[str]) -> Inputs:
    """Inputs of other descriptions, without images: cached where the run's are, else through the model's encoder."""
    assert isinstance(setting.text, TextBackbone)
    tokens: TokenisedTexts = tokenise(setting.text.tokenizer, descriptions, setting.config.max_text_tokens)
    texts = copy.copy(texts_of(setting.inputs))
    if isinstance(texts, CachedInputs):
        texts.text = cache_text_features(setting.text, tokens, setting.cache, lambda _: None, setting.tell)
        texts.text_mask = tokens.mask
    else:
        texts.texts = tokens
    return texts
