"""A table's parts, given as text, as Markdown, LaTeX, CSV and for a terminal; escaped for each."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "–": "--",
    "−": "$-$",
    "[": "{[}",  # after `\\` a bare one would be an argument
    "]": "{]}",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the table: what it shows, column names, and lines of cells; the first column names the row."""

    title: str
    header: list[str]
    lines: list[list[str]]


def as_rich(parts: list[Part], sentences: list[str], notes: list[str]) -> RenderableType:
    """For a terminal; only names may fold, never a number."""
    shown: list[RenderableType] = []
    for part in parts:
        table = RichTable(title=Text(part.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for i, name in enumerate(part.header):
            table.add_column(Text(name), justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
        for line in part.lines:
            table.add_row(*(Text(cell) for cell in line))
        shown.append(table)
    return Group(*shown, *(Text(sentence) for sentence in sentences), Text(), *(Text(note) for note in notes))


def as_markdown(parts: list[Part], sentences: list[str], notes: list[str]) -> str:
    """Pipe tables with a bold title each, then what follows from them."""
    blocks: list[str] = []
    for part in parts:
        rule = "| :--- " + "| ---: " * (len(part.header) - 1) + "|"
        header, *lines = (f"| {' | '.join(markdown(cell) for cell in line)} |" for line in (part.header, *part.lines))
        blocks.append("\n".join([f"**{markdown(part.title)}**\n", header, rule, *lines]))
    blocks += ["\n".join(f"- {markdown(line)}" for line in block) for block in (sentences, notes) if block]
    return "\n\n".join(blocks) + "\n"


def as_latex(parts: list[Part], sentences: list[str], notes: list[str]) -> str:
    """One `tabular` per part, then the sentences as text and the notes as comments."""
    blocks: list[str] = []
    for part in parts:
        columns = "l" + "r" * (len(part.header) - 1)
        header, *lines = (" & ".join(latex(cell) for cell in line) + r" \\" for line in (part.header, *part.lines))
        body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\hline", header, r"\hline", *lines, r"\hline"])
        blocks.append(f"% {_on_one_line(part.title)}\n{body}\n\\end{{tabular}}")
    blocks += [
        "\n".join(latex(line) + "\n" for line in sentences).strip(),
        "\n".join(f"% {_on_one_line(note)}" for note in notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def as_csv(records: list[dict[str, Any]]) -> str:
    """A header line and one line per record; nothing where a value is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def markdown(text: str) -> str:
    """`text` with nothing in it that Markdown or a pipe table would read as its own, on one line."""
    return _MARKDOWN.sub(r"\\\1", _on_one_line(text))


def latex(text: str) -> str:
    """`text` with nothing in it that LaTeX would read as its own, on one line."""
    return "".join(_LATEX.get(character, character) for character in _on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
