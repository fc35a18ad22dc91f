"""What may be written into provenance, and so be published: no secret, no password in a URL, no absolute path."""

import json
import re
import shlex
from contextlib import suppress
from pathlib import PureWindowsPath
from typing import Any

HIDDEN = "***"
_SECRET = re.compile(r"token(?!s)|secret|password|passwd|api[_-]?key|credential|authorization", re.IGNORECASE)
# User, password and host are hidden, what stands behind `?` and `#` goes; hf://datasets/OWNER/NAME names nobody.
_URL = re.compile(r"^((?!hf:|file:)[A-Za-z][\w+.-]*://)(?:\S*@)?[^/?#\s]*([^?#\s]*)\S*")
_ABSOLUTE = re.compile(r"^(/|~|file:|[A-Za-z]:[\\/])")
_OPTION = re.compile(r"[\w.-]+")
# In a sentence: a URL, a path in quotes, which may hold blanks, or one that ends where a path in prose would.
_IN_TEXT = re.compile(
    r"[A-Za-z][\w+.-]*://[^\s'\"<>]+"
    r"|(?<=['\"])(?:/|~|[A-Za-z]:[\\/])[^'\"\n]+(?=['\"])"
    r"|(?<![\w./<~])(?:/|~[\w.-]*/|[A-Za-z]:[\\/])[\w.][^\s'\"<>|:;,()]*"
)


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


def publishable_text(text: str) -> str:
    """A sentence, such as an engine's error, with the URLs and absolute paths in it made so, too."""
    return _IN_TEXT.sub(lambda found: _word(found[0]), text)


def publishable_command(words: list[str]) -> str:
    """A command line as it may be published; `--option=value` and `key=value` are looked into."""
    shown: list[str] = []
    name = ""
    for word in words:
        key, equals, value = word.partition("=")
        is_pair = bool(equals) and _OPTION.fullmatch(key) is not None  # a URL or a path may hold a = of its own
        if is_pair:
            shown.append(f"{key}={HIDDEN if _SECRET.search(key) else _inner(value)}")
        else:
            is_secret = _SECRET.search(name) or (equals and not _URL.match(word) and _SECRET.search(key))
            shown.append(HIDDEN if is_secret else _word(word))
        name = word if word.startswith("--") and not is_pair else ""
    return shlex.join(shown)


def _inner(value: str) -> str:
    """The value behind `--engine-arg=`, which may be `key=value` again."""
    key, equals, inner = value.partition("=")
    if equals and _OPTION.fullmatch(key):
        return f"{key}={HIDDEN if _SECRET.search(key) else _word(inner)}"
    return _word(value)


def _word(word: str) -> str:
    if word.startswith(("{", "[")):  # an engine argument may be JSON
        with suppress(ValueError):
            return json.dumps(publishable(json.loads(word)), ensure_ascii=False)
    if _URL.match(word):
        return _URL.sub(rf"\1{HIDDEN}\2", word)
    return PureWindowsPath(word).name if _ABSOLUTE.match(word) else word  # it splits at / and at \
