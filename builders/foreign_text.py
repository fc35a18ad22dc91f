"""Foreign text in a page: labels, file names, descriptions and model names may hold anything and must do nothing."""

import hashlib
import json
import unicodedata
from base64 import b64encode
from typing import Any

# Marks that turn the writing direction of what follows: with them a label can read as another one. The two weak ones
# (U+200E, U+200F) only place punctuation and are needed in honest Hebrew or Arabic.
_TURNING = frozenset("\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JSON_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def visible(text: object) -> str:
    """`text` with control characters and turned-round writing written as their code, `\\u202e`; line breaks stay.

    It is text still, not HTML: templates escape it, scripts set it as `textContent`.
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(_visible(character) for character in string.replace("\r\n", "\n"))


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    is_hidden = character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Co")
    return f"\\u{ord(character):04x}" if is_hidden else character


def script_json(value: Any) -> str:
    """`value` as compact JSON that may stand inside a <script> element: no `<`, no `&`, nothing that ends it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character, escape in _JSON_ESCAPES.items():
        text = text.replace(character, escape)
    return text


def content_policy(scripts: list[str], styles: list[str]) -> str:
    """A Content-Security-Policy under which a page runs exactly these inline texts and never talks to a network.

    `file:` and `'self'` are for the files beside the page: from a disk, and from a server it may be put on.
    """
    return "; ".join(
        [
            "default-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "img-src data: file: 'self'",
            f"script-src file: 'self' {' '.join(_hash_source(text) for text in scripts)}",
            f"style-src {' '.join(_hash_source(text) for text in styles)}",
        ]
    )


def _hash_source(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
