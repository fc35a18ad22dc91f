"""Descriptions that name a class: counted for both sets by one rule, whatever rules their flags were made by."""

import re
from collections.abc import Iterable

# Words of class names that say nothing of the class: how folders are called, and parts of the body.
_GENERIC = frozenset(
    {
        *(
            "and",
            "with",
            "from",
            "other",
            "others",
            "related",
            "photo",
            "picture",
            "image",
            "skin",
            "disease",
            "disorder",
        ),
        *("condition", "lesion", "infection", "eruption", "reaction", "benign", "malignant", "systemic", "contact"),
        *("light", "hair", "nail", "cell", "loss", "tissue", "connective", "drug", "normal", "healthy", "unknown"),
    }
)
_LETTERS = re.compile(r"[^\W\d_]{4,}")


class ClassWords:
    """The telling words of each class's name: four letters or more, compared without a plural's s."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._own = {label: frozenset(_stems(label)) - _GENERIC for label in labels}
        self._all = frozenset(word for words in self._own.values() for word in words)

    def named_in(self, text: str, label: str) -> str:
        """`own` where a text names its photograph's class, else `other` where it names another one, else ""."""
        stems = set(_stems(text))
        if stems & self._own.get(label, frozenset()):
            return "own"
        return "other" if stems & self._all else ""


def _stems(text: str) -> Iterable[str]:
    return (word.removesuffix("s") for word in _LETTERS.findall(text.lower()))
