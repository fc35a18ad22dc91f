"""The last line of a card: a comment that nobody sees, with a person's choices, from which it can be made again."""

import json
import re
from typing import Any

_MARK = re.compile(r"^<!-- vl-dermnet card (\d+) (\{.*\}) -->\s*\Z", re.MULTILINE)


def card_mark(version: int, choices: dict[str, Any]) -> str:
    """The comment, in ASCII and without anything that could end it early."""
    text = json.dumps(choices, sort_keys=True)
    inert = text.replace("-", "\\u002d").replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- vl-dermnet card {version} {inert} -->\n"


def read_card_mark(card: str) -> tuple[int, dict[str, Any]] | None:
    """The version that wrote a card, and the choices in it as they stand there; None where it is none of ours."""
    match = _MARK.search(card)
    if match is None:
        return None
    try:
        return int(match[1]), json.loads(match[2])
    except ValueError:
        return None
