"""What is counted in the one pass over all pairs: numbers and words, never a text for longer than its turn."""

from collections import Counter
from dataclasses import dataclass, field

from builders.dataset_folder import DescriptionSet
from dataset_card.compare.attributes import Disagreements, found_in, said_in
from dataset_card.compare.features import Cosine
from dataset_card.compare.leaks import ClassWords
from dataset_card.compare.pairs import Row
from dataset_card.compare.results import Agreement, Side
from dataset_card.compare.words import TypicalWord, jaccard, token_f1, words_of
from dataset_card.gallery.sets import model_of
from dataset_card.statistics import spread


@dataclass(slots=True)
class _SideCount:
    """One set's part of the counts."""

    vocabulary: Counter[str] = field(default_factory=Counter[str])
    words: list[int] = field(default_factory=list[int])
    characters: list[int] = field(default_factory=list[int])
    output_tokens: list[int] = field(default_factory=list[int])
    distinct: set[int] = field(default_factory=set[int])
    named: Counter[str] = field(default_factory=Counter[str])

    def count(self, row: Row, words: Counter[str], class_words: ClassWords) -> None:
        self.vocabulary.update(words)
        self.words.append(words.total())
        self.characters.append(len(row["description"]))
        self.output_tokens.append(row["n_output_tokens"])
        self.distinct.add(hash(row["description"]))
        self.named[class_words.named_in(row["description"], row["label"])] += 1

    def side(self, described: DescriptionSet, typical: list[TypicalWord]) -> Side:
        return Side(
            name=described.name,
            model=model_of(described),
            words=spread(self.words),
            characters=spread(self.characters),
            output_tokens=spread(self.output_tokens),
            n_distinct_texts=len(self.distinct),
            n_words=self.vocabulary.total(),
            n_distinct_words=len(self.vocabulary),
            n_empty=self.words.count(0),
            names_own_class=self.named["own"],
            names_other_class=self.named["other"],
            typical_words=typical,
        )


@dataclass(slots=True)
class _Likeness:
    """Values of one measure: of the pairs, and where A's text stands beside B's of another photograph."""

    of_pairs: list[float] = field(default_factory=list[float])
    by_chance: list[float] = field(default_factory=list[float])

    def agreement(self) -> Agreement:
        ordered = sorted(self.of_pairs)
        at = [ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95)]
        chance = sum(self.by_chance) / len(self.by_chance) if self.by_chance else None
        return Agreement(sum(ordered) / len(ordered), at[0], at[1], at[2], chance, len(ordered))


class Counting:
    """The counts over all pairs so far; `count` adds one."""

    def __init__(self, class_words: ClassWords, cosine: Cosine | None) -> None:
        self.a, self.b = _SideCount(), _SideCount()
        self.n_pairs = self.n_identical = self.n_with_findings = 0
        self.flags: dict[str, list[int]] = {}
        self.attributes, self.findings = Disagreements(), Disagreements()
        self._class_words = class_words
        self._cosine = cosine
        self._likeness = {name: _Likeness() for name in ("token_f1", "jaccard", *(["cosine"] if cosine else []))}
        # The pair before is "another photograph": ids, and so the order of rows, are hashes.
        self._before: tuple[str, Counter[str]] | None = None

    def count(self, row_a: Row, row_b: Row) -> float:
        """Add a pair; how alike it is: the cosine of its features where there are such, else its token F1."""
        text_a, text_b = row_a["description"], row_b["description"]
        words_a, words_b = Counter(words_of(text_a)), Counter(words_of(text_b))
        self.n_pairs += 1
        self.n_identical += text_a == text_b
        self.a.count(row_a, words_a, self._class_words)
        self.b.count(row_b, words_b, self._class_words)
        self._count_flags(set(row_a["flags"]), set(row_b["flags"]))
        self.attributes.count(said_in(text_a), said_in(text_b))
        found_a, found_b = found_in(row_a.get("findings", "")), found_in(row_b.get("findings", ""))
        if found_a is not None and found_b is not None:
            self.n_with_findings += 1
            self.findings.count(found_a, found_b)
        return self._count_likeness(row_a["image_id"], words_a, words_b)

    def _count_flags(self, flags_a: set[str], flags_b: set[str]) -> None:
        for flag in flags_a | flags_b:
            counts = self.flags.setdefault(flag, [0, 0, 0])
            counts[0] += flag in flags_a
            counts[1] += flag in flags_b
            counts[2] += flag in flags_a and flag in flags_b

    def _count_likeness(self, image_id: str, words_a: Counter[str], words_b: Counter[str]) -> float:
        measured = self._measure(image_id, words_a, image_id, words_b)
        for name, value in measured.items():
            self._likeness[name].of_pairs.append(value)
        if self._before is not None:
            for name, value in self._measure(image_id, words_a, *self._before).items():
                self._likeness[name].by_chance.append(value)
        self._before = (image_id, words_b)
        return measured.get("cosine", measured["token_f1"])

    def _measure(self, id_a: str, words_a: Counter[str], id_b: str, words_b: Counter[str]) -> dict[str, float]:
        measured = {"token_f1": token_f1(words_a, words_b), "jaccard": jaccard(frozenset(words_a), frozenset(words_b))}
        return measured if self._cosine is None else {**measured, "cosine": self._cosine.between(id_a, id_b)}

    def agreement(self) -> dict[str, Agreement]:
        """Every measure of likeness, summed up."""
        return {name: likeness.agreement() for name, likeness in self._likeness.items()}
