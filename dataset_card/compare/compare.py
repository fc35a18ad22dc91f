"""Compare two description sets of one dataset in one pass over both: the same inputs give the same result."""

import heapq
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from builders.dataset_folder import DescriptionSet, read_sets
from builders.errors import UserError
from dataset_card.compare.counting import Counting
from dataset_card.compare.experiments import TextOnly, read_text_only
from dataset_card.compare.features import Cosine
from dataset_card.compare.leaks import ClassWords
from dataset_card.compare.pairs import Row, Unpaired, pairs
from dataset_card.compare.results import Comparison, Pair
from dataset_card.compare.words import typical_words
from dataset_card.gallery.sets import label_names, open_sets

N_TYPICAL = 20
Track = Callable[[Iterable[tuple[Row, Row]], int], Iterable[tuple[Row, Row]]]


class CompareConfig(BaseModel):
    """Which two sets of which dataset.

    `features_a` and `features_b` are npz files of text features by `image_id`, from one encoder. `experiments` are
    folders of `train` whose text-only results are shown. `n_different` most different pairs are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    set_a: str
    set_b: str
    revision: str | None = None
    features_a: Path | None = None
    features_b: Path | None = None
    experiments: tuple[Path, ...] = ()
    n_different: int = Field(default=20, ge=0)


def compare(config: CompareConfig, track: Track = lambda found, total: found) -> Comparison:
    """Compare two sets over the photographs that both describe. `track(pairs, total)` may show progress.

    Raises `UserError` on an unknown dataset or set, on two sets without a common photograph, and on features or
    experiments that do not fit.
    """
    a, b = open_both(config)
    text_only = _text_only(config, a)
    class_words = ClassWords([name for each in (a, b) for name in label_names(_first_shard(each))])
    counting = Counting(class_words, _cosine_of(config))
    different = MostDifferent(config.n_different)
    unpaired = Unpaired()
    for row_a, row_b in track(pairs(a, b, unpaired), a.build["rows"]["n_rows"]):
        different.consider(row_a, row_b, counting.count(row_a, row_b))
    if not counting.n_pairs:
        raise UserError(f"the sets '{a.name}' and '{b.name}' have no photograph in common")
    typical_a, typical_b = typical_words(counting.a.vocabulary, counting.b.vocabulary, N_TYPICAL)
    return Comparison(
        a=counting.a.side(a, typical_a),
        b=counting.b.side(b, typical_b),
        n_pairs=counting.n_pairs,
        n_only_a=unpaired.n_only_a,
        n_only_b=unpaired.n_only_b,
        n_changed=unpaired.n_changed,
        n_identical=counting.n_identical,
        n_shared_words=len(counting.a.vocabulary.keys() & counting.b.vocabulary.keys()),
        agreement=counting.agreement(),
        flags=dict(sorted(counting.flags.items())),
        attributes=counting.attributes.sorted(),
        findings=counting.findings.sorted(),
        n_with_findings=counting.n_with_findings,
        text_only=text_only,
        different=different.pairs(),
    )


def open_both(config: CompareConfig) -> tuple[DescriptionSet, DescriptionSet]:
    """The two sets. Raises `UserError` where they are one, or not there."""
    if config.set_a == config.set_b:
        raise UserError(f"the set '{config.set_a}' is compared with itself", "name two sets of the dataset")
    a, b = open_sets(config.dataset, [config.set_a, config.set_b], config.revision)
    return a, b


def _first_shard(described: DescriptionSet) -> Path:
    return next(iter(described.shards.values()))[0]


def _text_only(config: CompareConfig, a: DescriptionSet) -> list[TextOnly]:
    folder = _first_shard(a).parent.parent
    primary = next((each.name for each in read_sets(folder) if each.is_primary), "")
    names = (config.set_a, config.set_b)
    rows = [row for experiment in config.experiments for row in read_text_only(experiment, names, primary)]
    return sorted(rows, key=lambda row: (row.protocol != "official", row.protocol, row.set_name != config.set_a))


def _cosine_of(config: CompareConfig) -> Cosine | None:
    if config.features_a is None and config.features_b is None:
        return None
    if config.features_a is None or config.features_b is None:
        raise UserError("features of one set alone say nothing", "give both --features-a and --features-b")
    return Cosine(config.features_a, config.features_b)


class MostDifferent:
    """The `n_pairs` least alike pairs of texts that both say something, each photograph once."""

    def __init__(self, n_pairs: int) -> None:
        self._n_pairs = n_pairs
        self._heap: list[tuple[float, int, Pair]] = []  # the most alike of them first: the next to go
        self._kept: set[str] = set()

    def consider(self, row_a: Row, row_b: Row, likeness: float) -> None:
        """Keep a pair if it is among the least alike so far; of equal ones those with the smaller sha256."""
        sha256 = row_a["image_sha256"]
        if sha256 in self._kept or not row_a["description"].strip() or not row_b["description"].strip():
            return
        entry = (-likeness, -int(sha256, 16), _pair(row_a, row_b, likeness))
        if len(self._heap) < self._n_pairs:
            heapq.heappush(self._heap, entry)
            self._kept.add(sha256)
        elif self._heap and entry[:2] > self._heap[0][:2]:
            gone = heapq.heapreplace(self._heap, entry)
            self._kept.remove(gone[2].image_sha256)
            self._kept.add(sha256)

    def pairs(self) -> list[Pair]:
        """The kept pairs, the least alike first."""
        return [pair for *_, pair in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _pair(row_a: Row, row_b: Row, likeness: float) -> Pair:
    return Pair(
        image_id=row_a["image_id"],
        image_sha256=row_a["image_sha256"],
        path=row_a["path"],
        label=row_a["label"],
        split=row_a["split"],
        likeness=likeness,
        text_a=row_a["description"],
        text_b=row_b["description"],
        flags_a=tuple(row_a["flags"]),
        flags_b=tuple(row_b["flags"]),
    )
