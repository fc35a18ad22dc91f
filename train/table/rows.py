"""The table as records: a row per model with its scores and comparisons by protocol, numbers unrounded."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import RenderableType

from train.origin import Origin
from train.statistics.interval import Interval
from train.table import render, words
from train.table.sentences import sentences

Verdict = Literal["helps", "hurts", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy (in %) and macro-F1 over the seeds of one model and protocol.

    `sd` and the interval over seeds are None with a single seed. The bootstrap is over seeds and groups of images.
    """

    accuracy_mean: float
    accuracy_sd: float | None
    macro_f1_mean: float
    macro_f1_sd: float | None
    n_seeds: int
    n_test: int
    n_groups: int
    accuracy_over_seeds: Interval | None
    accuracy_bootstrap: Interval
    macro_f1_over_seeds: Interval | None
    macro_f1_bootstrap: Interval


@dataclass(frozen=True, slots=True)
class Delta:
    """A difference of two models, with its paired bootstrap interval; accuracy in points, macro-F1 in [-1, 1]."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What the interval says: the mean alone says nothing."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "cannot be told"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model minus another (`against`), on the same test images and over the `n_seeds` seeds that both have.

    `n_only_first` and `n_only_second` are McNemar's: images, one of each group, that only one of the two gets right
    by the plurality of its seeds. `p_holm` is corrected for all models, or all controls, of the protocol.
    """

    against: str
    n_seeds: int
    accuracy: Delta
    macro_f1: Delta
    n_only_first: int
    n_only_second: int
    p_value: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class Row:
    """One model or control: its title, what the paper reports (None for a row that it lacks), and ours by protocol.

    `against_image_only` is this row minus the image alone; `model_minus_control`, of a control, its model minus it.
    """

    model: str
    title: str
    published_accuracy: float | None
    published_macro_f1: float | None
    ours: dict[str, Score]
    against_image_only: dict[str, Comparison]
    model_minus_control: dict[str, Comparison]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows in the paper's order, then other models, then controls; and the protocols that stand side by side.

    `origin` is what stood for image and text: what the rows are called and what the notes say of texts follows from it.
    """

    rows: tuple[Row, ...]
    protocols: tuple[str, ...]
    origin: Origin

    def as_json(self) -> dict[str, Any]:
        """For machines; numbers unrounded."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "protocols": list(self.protocols),
            "sentences": self.sentences(),
            "notes": self.notes(),
        }

    def sentences(self) -> list[str]:
        """Whether text helps, by protocol and metric."""
        return sentences(self)

    def notes(self) -> list[str]:
        """What has to be known to read the numbers."""
        return words.notes(self)

    def as_rich(self) -> RenderableType:
        """For a terminal."""
        return render.as_rich(words.parts(self), self.sentences(), self.notes())

    def as_markdown(self) -> str:
        """For a README or an issue."""
        return render.as_markdown(words.parts(self), self.sentences(), self.notes())

    def as_latex(self) -> str:
        """For a paper: plain `tabular`s, no package needed."""
        return render.as_latex(words.parts(self), self.sentences(), self.notes())

    def as_csv(self) -> str:
        """For a spreadsheet: a line per row and protocol, numbers unrounded."""
        return render.as_csv([line for row in self.rows for line in words.flat(row)])
