"""From word pieces to words: which words of a description each token of it belongs to, by character offsets."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_WORDS = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+")  # "well-defined" is one word; a comma is one of its own


@dataclass(frozen=True, slots=True)
class WordSpans:
    """The words of one text as (start, end) character positions, and for each token the number of its word.

    `word_of_token` is -1 for a token that is no part of the text, such as `[CLS]`. Words after the last were cut off.
    """

    spans: tuple[tuple[int, int], ...]
    word_of_token: tuple[int, ...]

    @property
    def n_read(self) -> int:
        """How many words have a token: those after them lie beyond what the model reads."""
        return max(self.word_of_token, default=-1) + 1

    def per_word(self, token_weights: npt.NDArray[np.floating[Any]]) -> tuple[list[float], float]:
        """The sum of each word's token weights, and that of the tokens that are no part of the text."""
        sums = np.zeros(len(self.spans) + 1)
        words = np.asarray(self.word_of_token, dtype=np.int64)  # -1 is the last place
        np.add.at(sums, words, token_weights[: len(words)])
        return sums[:-1].tolist(), float(sums[-1])


def word_spans(tokenizer: Any, text: str, max_tokens: int) -> WordSpans | None:
    """The words of `text` as `train.texts.tokenise` gives its tokens; None where a tokenizer tells no offsets."""
    if not tokenizer.is_fast:
        return None
    max_tokens = min(max_tokens, tokenizer.model_max_length)
    encoded = tokenizer(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    spans = tuple((found.start(), found.end()) for found in _WORDS.finditer(text))
    starts = np.asarray([start for start, _ in spans])
    words: list[int] = []
    for start, end in encoded["offset_mapping"]:
        piece = text[start:end]
        at = start + len(piece) - len(piece.lstrip())  # a piece may begin with the blank before its word
        word = int(np.searchsorted(starts, at, side="right")) - 1 if piece.strip() else -1
        words.append(word)
    return WordSpans(spans, tuple(words))
