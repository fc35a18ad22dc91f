"""Which words a class's descriptions use: each counted once per description, words without content left out."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SHORTEST = 3
_BETWEEN_WORDS = {code: " " for code in range(128) if not chr(code).isalpha() and chr(code) not in "'-"}
# English function words, and what every description of a photograph of skin says.
_WITHOUT_CONTENT = frozenset(Path(__file__).with_name("words_without_content.txt").read_text(encoding="utf-8").split())


@dataclass(slots=True)
class Terms:
    """How many descriptions use a word, by class; `n_rows` counts each class's descriptions.

    It grows with the vocabulary, not with the rows.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    n_rows: Counter[str] = field(default_factory=Counter[str])

    def add(self, label: str, description: str) -> None:
        """Count one description."""
        self.n_rows[label] += 1
        self.counts.setdefault(label, Counter()).update(terms_of(description))

    def total(self) -> Counter[str]:
        """Over all classes."""
        total = Counter[str]()
        for counts in self.counts.values():
            total.update(counts)
        return total

    def most_frequent(self, label: str, n_terms: int) -> list[tuple[str, int]]:
        """The words in most descriptions of a class, with how many; equals in alphabetical order."""
        return _greatest(self.counts.get(label, Counter()).items(), n_terms)

    def most_typical(self, n_terms: int) -> dict[str, list[str]]:
        """By class, the words that more of its descriptions use than of all others, by the difference of the shares."""
        total, n_all = self.total(), self.n_rows.total()
        typical: dict[str, list[str]] = {}
        for label, counts in self.counts.items():
            n_here, n_rest = self.n_rows[label], max(1, n_all - self.n_rows[label])
            lead = {term: count / n_here - (total[term] - count) / n_rest for term, count in counts.items()}
            typical[label] = [term for term, share in _greatest(lead.items(), n_terms) if share > 0]
        return typical


def terms_of(description: str) -> set[str]:
    """The words of content in a text, in lower case, each once."""
    lowered = description.lower()
    words = _ascii_words(lowered) if lowered.isascii() else set(_WORD.findall(lowered))
    return {word for word in words if len(word) >= _SHORTEST} - _WITHOUT_CONTENT


def _ascii_words(lowered: str) -> set[str]:
    """What `_WORD` finds, in a third of its time: it is asked only about the few pieces that are not letters alone."""
    pieces = set(lowered.translate(_BETWEEN_WORDS).split())
    words = set(filter(str.isalpha, pieces))
    for piece in pieces - words:
        words.update(_WORD.findall(piece))
    return words


def _greatest(pairs: Iterable[tuple[str, Number]], n_terms: int) -> list[tuple[str, Number]]:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:n_terms]
