"""Foreign text in Markdown: labels, model names and prompts may hold anything, and must not break or style a card."""

import html
import re
import unicodedata

_MARKUP = re.compile(r"[\\`*_\[\]#!|~$@]|:(?=//)|(?<=www)\.")  # the last two would become links by themselves


def plain(text: object) -> str:
    """`text` as it reads, on one line and inert: no markup, no HTML, no link, no turned-round writing direction.

    Right-to-left letters stay; control and direction-override characters are written as their code, `\\u202e`.
    """
    visible = "".join(_visible(character) for character in str(text))
    return _MARKUP.sub(r"\\\g<0>", html.escape(visible, quote=False))


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    return f"\\u{ord(character):04x}" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") else character


def block(text: object, language: str = "text") -> str:
    """`text` as a code block, behind a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", str(text))), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{str(text).rstrip()}\n{fence}"


def table(header: list[str], rows: list[list[object]], n_text_columns: int = 1) -> str:
    """A Markdown table; numbers, in the columns after the first `n_text_columns`, stand on the right."""
    rule = ["---"] * n_text_columns + ["---:"] * (len(header) - n_text_columns)
    lines = [[plain(cell) for cell in header], rule, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    match value:
        case bool() | str():
            return plain(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case _:
            return plain(value)
