"""Words of descriptions: how alike two texts are, and which words are one VLM's rather than the other's."""

import math
import re
from collections import Counter
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; `well-defined` is two, `patient's` one."""
    return _WORD.findall(text.lower())


def token_f1(a: Counter[str], b: Counter[str]) -> float:
    """Twice the shared words over all words, repeated ones counted as often as both have them; 1 for two empty texts.

    The F1 of SQuAD: Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250
    """
    n_words = a.total() + b.total()
    return 2 * (a & b).total() / n_words if n_words else 1.0


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared over all distinct elements; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


@dataclass(frozen=True, slots=True)
class TypicalWord:
    """A word that one set uses more than the other, how often each does, and how sure that is in standard errors."""

    word: str
    n_a: int
    n_b: int
    z: float


def typical_words(a: Counter[str], b: Counter[str], n_words: int) -> tuple[list[TypicalWord], list[TypicalWord]]:
    """The `n_words` most typical words of A and of B, the most typical first.

    Log-odds ratios with an informative Dirichlet prior (here the two sets' joint counts), in standard errors:
    Monroe et al. 2008, "Fightin' Words", https://doi.org/10.1093/pan/mpn018
    """
    prior = a + b
    n_a, n_b, n_prior = a.total(), b.total(), prior.total()
    scored: list[TypicalWord] = []
    for word, alpha in prior.items():
        y_a, y_b = a[word] + alpha, b[word] + alpha
        rest_a, rest_b = n_a + n_prior - y_a, n_b + n_prior - y_b
        if not rest_a or not rest_b:
            continue  # the only word there is
        difference = math.log(y_a / rest_a) - math.log(y_b / rest_b)
        scored.append(TypicalWord(word, a[word], b[word], difference / math.sqrt(1 / y_a + 1 / y_b)))
    scored.sort(key=lambda each: (-each.z, each.word))
    of_a = [each for each in scored[:n_words] if each.z > 0]
    of_b = [each for each in scored[: -n_words - 1 : -1] if each.z < 0]
    return of_a, of_b
