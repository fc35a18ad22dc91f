"""One broken contract of a dataset folder, in words that are safe to print."""

from dataclasses import dataclass

MAX_SHOWN = 300  # characters of a value that are shown


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in one place: `file` is relative to the dataset folder, `place` a row, line or key in it, or "".

    `contract` names the kind of rule, `seen` is what stands there and `allowed` what may. All of it is printable text:
    what a stranger's file holds goes through `shown` first.
    """

    contract: str
    file: str
    place: str
    seen: str
    allowed: str


def shown(value: object) -> str:
    """`value` for people: text in quotes, control and direction characters as escapes, long values cut."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text):,} characters)"
    inert = visible(cut)
    return f"'{inert}'" if isinstance(value, str) else inert


def visible(text: str) -> str:
    """`text` with every character that does not print written as its escape, `\\u202e`."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def row_place(image_id: object) -> str:
    """How a row is named in `place`."""
    return f"row {visible(str(image_id))[:64]}"
