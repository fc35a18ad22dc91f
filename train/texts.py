"""From descriptions to token ids: tokenised once, cut at a stated length, no description means no token."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import UserError


@dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Token ids (n, length), True in `mask` (n, length) on real tokens; all False in a row without a description.

    `n_cut` counts the texts that were longer than the limit.
    """

    token_ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    n_cut: int


def tokenise(tokenizer: Any, texts: list[str], max_tokens: int) -> TokenisedTexts:
    """Tokenise `texts` as the checkpoint does, special tokens included, and pad them on the right to the longest.

    Raises `UserError` where `max_tokens` leaves no room for a word beside the special tokens.
    """
    max_tokens = min(max_tokens, tokenizer.model_max_length)
    n_special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= n_special:
        raise UserError(
            f"texts of {max_tokens} tokens hold no word: {n_special} tokens are the tokenizer's own",
            f"--max-text-tokens {n_special + 1} or more",
        )
    whole: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    cut: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    ids = [row if text.strip() else [] for row, text in zip(cut, texts, strict=True)]
    length = max(1, max(len(row) for row in ids))
    padding_id: int = tokenizer.pad_token_id or 0  # any id will do: it is masked
    token_ids = np.full((len(ids), length), padding_id, dtype=np.int64)
    mask = np.zeros((len(ids), length), dtype=np.bool_)
    for i, row in enumerate(ids):
        token_ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    n_cut = sum(len(before) > len(after) for before, after in zip(whole, ids, strict=True) if after)
    return TokenisedTexts(token_ids, mask, n_cut)
