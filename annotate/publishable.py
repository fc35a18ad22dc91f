"""What may be written into provenance, and so be published: no secret, no password in a URL, no absolute path."""

import re
import shlex
from pathlib import PurePath
from typing import Any

HIDDEN = "***"
_SECRET = re.compile(r"token(?!s)|secret|password|passwd|api[_-]?key|credential|authorization", re.IGNORECASE)
_URL = re.compile(r"^((?!hf:)\w+://)[^/\s]+")  # hf://datasets/OWNER/NAME names no host
_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:\\)")


def publishable(value: Any, name: str = "") -> Any:
    """`value` with secrets hidden by the name they go under, hosts of URLs hidden, absolute paths cut to their name."""
    if isinstance(value, dict):
        return {key: publishable(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [publishable(inner, name) for inner in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if _SECRET.search(name):
        return HIDDEN
    return _word(str(value))


def publishable_command(words: list[str]) -> str:
    """A command line as it may be published; `--option=value` and `key=value` are looked into."""
    shown: list[str] = []
    name = ""
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            shown.append(f"{key}={HIDDEN if _SECRET.search(key) else _inner(value)}")
        else:
            shown.append(HIDDEN if _SECRET.search(name) else _word(word))
        name = word if word.startswith("--") and not equals else ""
    return shlex.join(shown)


def _inner(value: str) -> str:
    """The value behind `--engine-arg=`, which may be `key=value` again."""
    key, equals, inner = value.partition("=")
    if equals and re.fullmatch(r"[\w-]+", key):
        return f"{key}={HIDDEN if _SECRET.search(key) else _word(inner)}"
    return _word(value)


def _word(word: str) -> str:
    if _URL.match(word):
        return _URL.sub(rf"\1{HIDDEN}", word)
    return PurePath(word).name if _ABSOLUTE.match(word) else word
