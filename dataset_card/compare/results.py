"""What a comparison finds, as records: the table, the page and the JSON are three ways to write them."""

from dataclasses import dataclass

from dataset_card.compare.attributes import Disagreement
from dataset_card.compare.experiments import TextOnly
from dataset_card.compare.words import TypicalWord
from dataset_card.statistics import Spread


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike the two texts of a photograph are, 1 being the same, over all photographs.

    `by_chance` is the mean where a text of A stands beside B's text of another photograph: what style alone gives.
    None where there is but one pair.
    """

    mean: float
    percentile_5: float
    median: float
    percentile_95: float
    by_chance: float | None
    n_pairs: int


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets, counted over the photographs that both describe.

    `names_own_class` and `names_other_class` count texts with a telling word of their photograph's class, or, if not,
    of another class.
    """

    name: str
    model: str
    words: Spread
    characters: Spread
    output_tokens: Spread
    n_distinct_texts: int
    n_words: int
    n_distinct_words: int
    n_empty: int
    names_own_class: int
    names_other_class: int
    typical_words: list[TypicalWord]


@dataclass(frozen=True, slots=True)
class Pair:
    """What both sets say of one photograph; `likeness` is the cosine of features, or token F1 without features."""

    image_id: str
    image_sha256: str
    path: str
    label: str
    split: str
    likeness: float
    text_a: str
    text_b: str
    flags_a: tuple[str, ...]
    flags_b: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from set A to set B. `flags` maps each flag to how often A, B and both carry it.

    `findings` is empty unless both sets hold findings. `different` are the most different pairs of non-empty texts,
    each photograph once, the most different first.
    """

    a: Side
    b: Side
    n_pairs: int
    n_only_a: int
    n_only_b: int
    n_changed: int
    n_identical: int
    n_shared_words: int
    agreement: dict[str, Agreement]
    flags: dict[str, list[int]]
    attributes: dict[str, Disagreement]
    findings: dict[str, Disagreement]
    n_with_findings: int
    text_only: list[TextOnly]
    different: list[Pair]
