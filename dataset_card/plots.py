"""Which plots a dataset folder has, and the numbers in each: classes, lengths, tokens, flags, words by class."""

from collections import Counter
from typing import Any

from dataset_card.drawing import Plot
from dataset_card.statistics import SetStatistics, spread

ASSETS = "assets"
MAX_ROWS = 60  # bars of one plot; more are added up in a last one
MAX_BINS = 40
N_TERMS = 14
OF_A_SET = ("lengths", "tokens", "flags", "terms")  # the last two where the set has any


def plots_of(statistics: dict[str, SetStatistics]) -> dict[str, Plot]:
    """File name -> plot, of all sets; `statistics` has the primary set first, whose classes are shown."""
    primary = next(iter(statistics))
    plots = {"classes.png": _classes(primary, statistics[primary])}
    for name, counted in statistics.items():
        plots |= {f"{name}-{what}.png": plot for what, plot in _plots_of_set(name, counted).items()}
    return plots


def plot_names(set_name: str) -> list[str]:
    """The file names that plots of one set may have."""
    return [f"{set_name}-{what}.png" for what in OF_A_SET]


def _plots_of_set(name: str, counted: SetStatistics) -> dict[str, Plot]:
    plots = {
        "lengths": _histogram(f"{name}: words per description", "words", counted.words),
        "tokens": _histogram(f"{name}: output tokens per description", "output tokens", counted.output_tokens),
    }
    if counted.flags:
        plots["flags"] = _flags(name, counted)
    if counted.terms.total():
        plots["terms"] = _terms(name, counted)
    return plots


def _classes(name: str, counted: SetStatistics) -> Plot:
    splits = list(counted.splits)
    rows: list[list[Any]] = [
        [label or "(no label)", [n_rows[split] for split in splits]] for label, n_rows in counted.labels.items()
    ]
    sizes = [sum(counts) for _, counts in rows if sum(counts)]
    note = f"{counted.n_rows:,} rows in {len(sizes)} classes of {min(sizes):,} to {max(sizes):,}, by the source's split"
    return {
        "kind": "bars",
        "title": f"{name}: rows per class",
        "note": note,
        "series": splits,
        "rows": _shortened(rows, len(splits)),
    }


def _flags(name: str, counted: SetStatistics) -> Plot:
    ordered = sorted(counted.flags.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[Any]] = [[flag, [n_rows]] for flag, n_rows in ordered]
    return {
        "kind": "bars",
        "title": f"{name}: flagged descriptions",
        "note": f"of {counted.n_rows:,}; a description may carry several flags",
        "series": ["rows"],
        "rows": _shortened(rows, 1),
    }


def _shortened(rows: list[list[Any]], n_series: int) -> list[list[Any]]:
    """At most `MAX_ROWS` rows, the last one for all that are left out."""
    if len(rows) <= MAX_ROWS:
        return rows
    rest = rows[MAX_ROWS - 1 :]
    total = [sum(counts[number] for _, counts in rest) for number in range(n_series)]
    return [*rows[: MAX_ROWS - 1], [f"{len(rest)} more", total]]


def _histogram(title: str, axis: str, numbers: Counter[int]) -> Plot:
    """Bins of one round width from the smallest number to the largest."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    width = _round_width((high - low + 1) / MAX_BINS)
    start = low // width * width
    counts = [0] * ((high - start) // width + 1)
    for number, n_rows in numbers.items():
        counts[(number - start) // width] += n_rows
    told = spread(numbers)
    return {
        "kind": "histogram",
        "title": title,
        "note": f"{numbers.total():,} rows, {told.minimum:,} to {told.maximum:,} {axis}, mean {told.mean:,.1f}",
        "axis": axis,
        "start": start,
        "width": width,
        "counts": counts,
        "marks": [["median", told.median]],
    }


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that is not below `least`."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= least:
                return step * scale
        scale *= 10


def _terms(name: str, counted: SetStatistics) -> Plot:
    """Per class the share of descriptions with each of the set's most frequent words."""
    total = counted.terms.total()
    columns = sorted(total, key=lambda term: (-total[term], term))[:N_TERMS]
    n_rows = counted.terms.n_rows
    rows: list[list[Any]] = [
        [label or "(no label)", [round(100 * counted.terms.counts[label][term] / n_rows[label]) for term in columns]]
        for label in counted.labels
        if n_rows[label]
    ]
    return {
        "kind": "heat",
        "title": f"{name}: most frequent words by class",
        "note": "descriptions of the class with the word, in per cent; words without content are left out",
        "columns": columns,
        "rows": rows[:MAX_ROWS],
    }
