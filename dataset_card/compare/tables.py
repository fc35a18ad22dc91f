"""A comparison as tables of words and numbers: the same for the terminal and for the page."""

from dataclasses import dataclass

from builders.foreign_text import visible
from dataset_card.compare.attributes import Disagreement
from dataset_card.compare.results import Comparison, Side
from dataset_card.compare.words import TypicalWord
from dataset_card.statistics import Spread

NOTE = (
    "Descriptions are written by machines. Nothing here says which of the two is right: that takes a reviewer, or a"
    " classifier trained on each. Not for clinical use."
)
_SPREAD = ("median", "mean", "95 %", "max")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, the first column being names; `note` says how to read it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def tables_of(found: Comparison) -> list[Table]:
    """Every table of a comparison, in the order of reading; those without a row are left out."""
    tables = [
        _rows(found),
        _lengths(found),
        _agreement(found),
        _text_only(found),
        _flags(found),
        _leaks(found),
        *_disagreements("What the texts say", found.attributes, found.n_pairs),
        *_disagreements("What the findings say", found.findings, found.n_with_findings),
        _vocabulary(found),
        _typical(f"Words of {found.a.name}", found.a.typical_words, found),
        _typical(f"Words of {found.b.name}", found.b.typical_words, found),
    ]
    return [table for table in tables if table.rows]


def _rows(found: Comparison) -> Table:
    counts = {
        "described by both": found.n_pairs,
        f"only by {found.a.name}": found.n_only_a,
        f"only by {found.b.name}": found.n_only_b,
        "by both, but of changed files": found.n_changed,
        "same text in both": found.n_identical,
    }
    rows = [(name, _count(n)) for name, n in counts.items()]
    return Table("Photographs", ("", "n"), rows, "All that follows is over those described by both.")


def _lengths(found: Comparison) -> Table:
    rows: list[tuple[str, ...]] = []
    for title, name in (("words", "words"), ("characters", "characters"), ("output tokens", "output_tokens")):
        for side in (found.a, found.b):
            spread: Spread = getattr(side, name)
            numbers = (spread.median, spread.mean, spread.percentile_95, spread.maximum)
            rows.append((f"{title}, {side.name}", *(f"{number:,.1f}" for number in numbers)))
    return Table("Length of a description", ("", *_SPREAD), rows)


def _agreement(found: Comparison) -> Table:
    names = {"token_f1": "token F1", "jaccard": "Jaccard of words", "cosine": "cosine of features"}
    rows = [
        (
            names[name],
            f"{each.mean:.3f}",
            f"{each.percentile_5:.3f}",
            f"{each.median:.3f}",
            f"{each.percentile_95:.3f}",
            "–" if each.by_chance is None else f"{each.by_chance:.3f}",
        )
        for name, each in found.agreement.items()
    ]
    note = "By chance: the mean where a text stands beside the other set's text of another photograph."
    return Table("How alike the two texts are", ("", "mean", "5 %", "median", "95 %", "by chance"), rows, note)


def _text_only(found: Comparison) -> Table:
    rows = [
        (
            f"{each.protocol}, {each.set_name}",
            f"{each.accuracy_mean:.2f}" + ("" if each.accuracy_sd is None else f" ± {each.accuracy_sd:.2f}"),
            f"{each.macro_f1_mean:.4f}",
            _count(each.n_seeds),
            _count(each.n_test),
        )
        for each in found.text_only
    ]
    header = ("", "accuracy in %", "macro-F1", "seeds", "test rows")
    return Table("The class, told from the text alone", header, rows, "As the experiments state it.")


def _flags(found: Comparison) -> Table:
    rows = [
        (visible(flag), *_shares(n_a, n_b, n_both, found.n_pairs)) for flag, (n_a, n_b, n_both) in found.flags.items()
    ]
    return Table("Flags", ("", found.a.name, found.b.name, "both"), rows, "As each run set them, by its own rules.")


def _leaks(found: Comparison) -> Table:
    n = found.n_pairs
    rows = [
        ("names its own class", _share(found.a.names_own_class, n), _share(found.b.names_own_class, n)),
        ("names another class only", _share(found.a.names_other_class, n), _share(found.b.names_other_class, n)),
        ("says nothing", _share(found.a.n_empty, n), _share(found.b.n_empty, n)),
    ]
    note = "A text names a class where it holds a telling word of the class's name; synonyms are not known."
    return Table("Texts that give a class away, or nothing", ("", found.a.name, found.b.name), rows, note)


def _disagreements(title: str, by_name: dict[str, Disagreement], n_rows: int) -> list[Table]:
    """One table over all attributes, and one with the values of each."""
    overview = [
        (
            visible(name),
            *_shares(each.n_a, each.n_b, each.n_both, n_rows),
            _share(each.n_same, each.n_both),
            _share(each.n_disjoint, each.n_both),
            _share(each.n_disjoint_by_chance, each.n_both_by_chance),
        )
        for name, each in by_name.items()
    ]
    header = ("", "A names it", "B names it", "both do", "the same", "contradict", "by chance")
    note = (
        "The same and contradict: of the photographs where both name the attribute. Contradict: no value in common."
        " By chance: beside what the other set says of another photograph."
    )
    values = [
        (f"{visible(name)}: {visible(value)}", *_shares(n_a, n_b, n_both, n_rows))
        for name, each in by_name.items()
        for value, (n_a, n_b, n_both) in each.values.items()
    ]
    instead = [
        (f"{visible(name)}: {visible(change)}", _count(n))
        for name, each in by_name.items()
        for change, n in each.instead.items()
    ]
    return [
        Table(title, header, overview, note),
        Table(f"{title}: values", ("", "A", "B", "both"), values),
        Table(f"{title}: the most frequent contradictions, A → B", ("", "photographs"), instead),
    ]


def _vocabulary(found: Comparison) -> Table:
    sides = (found.a, found.b)
    rows = [
        ("words", *(_count(side.n_words) for side in sides)),
        ("different words", *(_count(side.n_distinct_words) for side in sides)),
        ("of them in both", *(_share(found.n_shared_words, side.n_distinct_words) for side in sides)),
        ("different texts", *(_count(side.n_distinct_texts) for side in sides)),
    ]
    return Table("Vocabulary", ("", found.a.name, found.b.name), rows)


def _typical(title: str, words: list[TypicalWord], found: Comparison) -> Table:
    rows = [(visible(each.word), _count(each.n_a), _count(each.n_b), f"{abs(each.z):.1f}") for each in words]
    note = "z: by how many standard errors the log-odds ratio differs from 0 (Monroe et al. 2008)."
    return Table(title, ("", found.a.name, found.b.name, "z"), rows, note)


def _shares(n_a: int, n_b: int, n_both: int, n_rows: int) -> tuple[str, str, str]:
    return _share(n_a, n_rows), _share(n_b, n_rows), _share(n_both, n_rows)


def _share(n: int, n_rows: int) -> str:
    return f"{n:,} ({100 * n / n_rows:.1f} %)" if n_rows else "–"


def _count(n: int) -> str:
    return f"{n:,}"


def as_text(found: Comparison) -> str:
    """All tables for a terminal, in plain columns."""
    return "\n".join([_sides(found.a, found.b), NOTE, "", *map(_text_table, tables_of(found)), _different(found)])


def _sides(a: Side, b: Side) -> str:
    return "\n".join(f"{letter}: {' '.join([side.name, visible(side.model)])}" for letter, side in (("A", a), ("B", b)))


def _text_table(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    text = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *(f"  {line}" for line in text), *([f"  {table.note}"] if table.note else []), ""])


def _different(found: Comparison) -> str:
    if not found.different:
        return ""
    lines = [f"The {len(found.different)} most different pairs of texts, each photograph once"]
    lines += [f"  {pair.likeness:.3f}  {pair.image_id}  {visible(pair.path)}" for pair in found.different]
    return "\n".join(lines)
