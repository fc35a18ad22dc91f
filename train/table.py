"""The paper's table beside ours: published numbers, and mean ± sd over seeds, from the predictions files alone."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table as RichTable

from builders.errors import UserError
from train.metrics import accuracy, macro_f1

# The reproduced paper's rows on DermNet's own split (4,002 test images), one seed each: name, accuracy in %, macro-F1.
PUBLISHED: dict[str, tuple[str, float, float]] = {
    "text_only": ("BERT (text only)", 35.66, 0.2992),
    "image_only": ("ViT (image only)", 70.59, 0.6648),
    "concat": ("Concat", 70.44, 0.6696),
    "gating": ("Gating", 70.39, 0.6671),
    "dual_film": ("Dual FiLM", 70.41, 0.6702),
    "attention_pooling": ("Attention pooling", 71.31, 0.6794),
}
NOTES = (
    "Paper: published on DermNet, one run; comparable only to ours on DermNet's official split.",
    "Ours: mean ± standard deviation over seeds; accuracy in %, macro-F1 in [0, 1].",
    "Descriptions are machine-written. Research only, not for clinical use.",
)


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy (in %) and macro-F1 over the seeds of one model and protocol; `sd` is None with a single seed."""

    accuracy_mean: float
    accuracy_sd: float | None
    macro_f1_mean: float
    macro_f1_sd: float | None
    n_seeds: int
    n_test: int


@dataclass(frozen=True, slots=True)
class Row:
    """One model: its title, what the paper reports (None for a row that the paper lacks), and ours by protocol."""

    model: str
    title: str
    published_accuracy: float | None
    published_macro_f1: float | None
    ours: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows in the paper's order, and the protocols that stand side by side."""

    rows: tuple[Row, ...]
    protocols: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For machines; numbers unrounded."""
        return {"rows": [asdict(row) for row in self.rows], "protocols": list(self.protocols), "notes": self.notes()}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text, the same for every rendering."""
        header = ["model", "paper acc.", "paper F1"]
        header += [f"{protocol} {metric}" for protocol in self.protocols for metric in ("acc.", "F1")]
        lines: list[list[str]] = []
        for row in self.rows:
            has_published = row.published_accuracy is not None and row.published_macro_f1 is not None
            line = [row.title]
            line += [f"{row.published_accuracy:.2f}", f"{row.published_macro_f1:.4f}"] if has_published else ["–", "–"]
            for protocol in self.protocols:
                score = row.ours.get(protocol)
                if score is None:
                    line += ["–", "–"]
                    continue
                line.append(_plus_minus(score.accuracy_mean, score.accuracy_sd, 2))
                line.append(_plus_minus(score.macro_f1_mean, score.macro_f1_sd, 4))
            lines.append(line)
        return header, lines

    def notes(self) -> list[str]:
        """What has to be known to read the numbers."""
        counts: list[str] = []
        for protocol in self.protocols:
            scores = [row.ours[protocol] for row in self.rows if protocol in row.ours]
            n_seeds, n_test = ({score.n_seeds for score in scores}, {score.n_test for score in scores})
            counts.append(f"{protocol}: {_span(n_test)} test images, {_span(n_seeds)} seeds.")
        return [*NOTES[:2], *counts, *NOTES[2:]]

    def as_rich(self) -> RichTable:
        """For a terminal."""
        header, lines = self.cells()
        table = RichTable(caption="\n".join(self.notes()), caption_justify="left", caption_style="")
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for line in lines:
            table.add_row(*line)
        return table

    def as_markdown(self) -> str:
        """For a README or an issue."""
        header, lines = self.cells()
        rule = [":---"] + ["---:"] * (len(header) - 1)
        body = "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))
        return body + "\n\n" + "\n".join(f"- {note}" for note in self.notes()) + "\n"


def _plus_minus(value: float, sd: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" if sd is None else f"{value:.{digits}f} ± {sd:.{digits}f}"


def _span(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


def experiment_table(folder: Path) -> Table:
    """The table of an experiment folder, from `predictions/*.parquet`. Raises `UserError` where there are none."""
    files = sorted((folder / "predictions").glob("*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no predictions/*.parquet", f"vl-dermnet train DATASET --out '{folder}'")
    scores: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for file in files:
        model, protocol, _seed = file.stem.rsplit("-", 2)
        scores[model, protocol].append(_score(file))
    models = [*PUBLISHED, *sorted({model for model, _ in scores} - set(PUBLISHED))]
    protocols = tuple(p for p in ("official", "clean") if any(protocol == p for _, protocol in scores))
    rows: list[Row] = []
    for model in models:
        ours = {
            protocol: _over_seeds(scores[model, protocol]) for protocol in protocols if scores.get((model, protocol))
        }
        title, *published = PUBLISHED.get(model, (model, None, None))
        rows.append(Row(model, title, published[0], published[1], ours))
    return Table(tuple(rows), protocols)


def _score(file: Path) -> tuple[float, float, int]:
    """Accuracy in %, macro-F1 and the number of test images of one predictions file."""
    columns = pq.read_table(file, columns=["label", "predicted"])
    names = sorted({*columns["label"].to_pylist(), *columns["predicted"].to_pylist()})
    position = {name: i for i, name in enumerate(names)}
    labels, predicted = (
        np.asarray([position[name] for name in columns[column].to_pylist()], dtype=np.int64)
        for column in ("label", "predicted")
    )
    return 100 * accuracy(labels, predicted), macro_f1(labels, predicted), len(labels)


def _over_seeds(scores: list[tuple[float, float, int]]) -> Score:
    accuracies, macro_f1s, n_tests = zip(*scores, strict=True)
    has_sd = len(scores) > 1
    return Score(
        accuracy_mean=mean(accuracies),
        accuracy_sd=stdev(accuracies) if has_sd else None,
        macro_f1_mean=mean(macro_f1s),
        macro_f1_sd=stdev(macro_f1s) if has_sd else None,
        n_seeds=len(scores),
        n_test=max(n_tests),
    )


def table_json(table: Table) -> str:
    """`Table.as_json` as indented text."""
    return json.dumps(table.as_json(), indent=2, ensure_ascii=False)
