"""What descriptions say of a lesion, in a small closed vocabulary, and where two sets say different things.

It counts words; it does not know what is in the photograph. A value counts as said where one of its words stands in the
text and no negation shortly before it ("no scaling", "non-scaly").
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dataset_card.compare.vocabulary import ATTRIBUTES

_TOKEN = re.compile(r"\w+|[.;:!?]")
_NEGATIONS = frozenset(
    {"no", "not", "non", "without", "absent", "absence", "lack", "lacks", "lacking", "neither", "nor"}
)
_N_WORDS_NEGATED = 3  # "no visible surface scaling", but not what a later clause says


def _phrases() -> dict[str, list[tuple[list[str], str, str]]]:
    """First word -> its phrases with their attribute and value, the longest first."""
    starts: dict[str, list[tuple[list[str], str, str]]] = {}
    for attribute, values in ATTRIBUTES.items():
        for value, listed in values.items():
            for phrase in listed.split(", "):
                words = phrase.split()
                starts.setdefault(words[0], []).append((words, attribute, value))
    return {first: sorted(phrases, key=lambda phrase: -len(phrase[0])) for first, phrases in starts.items()}


_STARTS = _phrases()


def said_in(text: str) -> dict[str, frozenset[str]]:
    """Attribute -> the values that a text names; empty sets where it names none."""
    tokens = _TOKEN.findall(text.lower())
    said: dict[str, set[str]] = {attribute: set() for attribute in ATTRIBUTES}
    for place, token in enumerate(tokens):
        for words, attribute, value in _STARTS.get(token, ()):
            if len(words) == 1 or tokens[place : place + len(words)] == words:
                if value and not _is_negated(tokens, place):
                    said[attribute].add(value)
                break
    return {attribute: frozenset(values) for attribute, values in said.items()}


def _is_negated(tokens: list[str], place: int) -> bool:
    """Whether a negation stands at most `_N_WORDS_NEGATED` words before, in the same clause."""
    for token in reversed(tokens[max(0, place - _N_WORDS_NEGATED) : place]):
        if token in _NEGATIONS:
            return True
        if not token[0].isalnum():
            return False
    return False


def found_in(findings: str) -> dict[str, frozenset[str]] | None:
    """Field -> values of findings in JSON; None where there are none, or where it is no object of words."""
    try:
        fields = json.loads(findings) if findings else None
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    return {
        str(name): frozenset(str(each) for each in (value if isinstance(value, list) else [value]))
        for name, value in fields.items()
    }


@dataclass(slots=True)
class Disagreement:
    """How two sets speak of one attribute, in photographs.

    Of those where both name a value, `n_same` name the same ones, `n_disjoint` share none. `n_disjoint_by_chance` of
    `n_both_by_chance` share none where A's photograph is put beside another one of B. `values` maps each value to how
    often A, B and both name it; `instead` counts (A's values, B's values) of the disjoint.
    """

    n_a: int = 0
    n_b: int = 0
    n_both: int = 0
    n_same: int = 0
    n_disjoint: int = 0
    n_both_by_chance: int = 0
    n_disjoint_by_chance: int = 0
    values: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    instead: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, a: frozenset[str], b: frozenset[str], other_b: frozenset[str]) -> None:
        """Add one photograph; `other_b` is what B says of another one."""
        self.n_a += bool(a)
        self.n_b += bool(b)
        for value in a | b:
            counts = self.values.setdefault(value, [0, 0, 0])
            counts[0] += value in a
            counts[1] += value in b
            counts[2] += value in a and value in b
        if a and other_b:
            self.n_both_by_chance += 1
            self.n_disjoint_by_chance += not a & other_b
        if a and b:
            self.n_both += 1
            self.n_same += a == b
            if not a & b:
                self.n_disjoint += 1
                change = f"{', '.join(sorted(a))} → {', '.join(sorted(b))}"
                self.instead[change] = self.instead.get(change, 0) + 1


class Disagreements:
    """One `Disagreement` per attribute, filled photograph by photograph."""

    def __init__(self) -> None:
        self._by_name: dict[str, Disagreement] = {}
        self._before: Mapping[str, frozenset[str]] = {}

    def count(self, a: Mapping[str, frozenset[str]], b: Mapping[str, frozenset[str]]) -> None:
        """Add one photograph. The one before it stands for "another": ids, and so the order, are hashes."""
        nothing: frozenset[str] = frozenset()
        for name in dict.fromkeys((*a, *b)):
            counted = self._by_name.setdefault(name, Disagreement())
            counted.count(a.get(name, nothing), b.get(name, nothing), self._before.get(name, nothing))
        self._before = b

    def sorted(self) -> dict[str, Disagreement]:
        """All of them, with values and contradictions by how frequent they are, the latter cut to the first five."""
        return {
            name: replace(
                counted,
                values=dict(sorted(counted.values.items(), key=lambda pair: (-pair[1][0] - pair[1][1], pair[0]))),
                instead=dict(sorted(counted.instead.items(), key=lambda pair: (-pair[1], pair[0]))[:5]),
            )
            for name, counted in self._by_name.items()
        }
