"""Findings as JSON beside the free text: a closed vocabulary, held to while the model writes, never repaired after.

A schema is a pair of files: NAME.json (JSON Schema of objects, arrays, and strings from an enum), NAME.md (its prompt).
Every value is one of a few words, so the longest possible answer is known and no token limit can cut one.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import choose


@dataclass(frozen=True, slots=True)
class Schema:
    """What is asked for and in which words: `json_schema` as the engine takes it, `prompt` the user's turn."""

    name: str
    prompt: str
    json_schema: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Hex sha256 of schema and prompt."""
        text = json.dumps(self.json_schema, sort_keys=True) + self.prompt
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def max_tokens(self) -> int:
        """More tokens than any answer takes: its greatest length in characters, and one to stop."""
        return 1 + _longest(self.json_schema)

    def accepts(self, text: str) -> bool:
        """Whether `text` is JSON of this schema."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return _fits(value, self.json_schema)


def load_schema(name: str | None) -> Schema | None:
    """The bundled schema NAME; None for None. Raises `UserError` for another name."""
    if name is None:
        return None
    folder = Path(__file__).parent
    choose("schema", name, sorted(path.stem for path in folder.glob("*.json")))
    return Schema(
        name=name,
        prompt=(folder / f"{name}.md").read_text(encoding="utf-8").strip(),
        json_schema=json.loads((folder / f"{name}.json").read_text(encoding="utf-8")),
    )


def _longest(schema: dict[str, Any]) -> int:
    """Characters of the longest JSON that fits, with `, ` and `: ` between its parts."""
    if schema["type"] == "object":
        return 2 + sum(len(json.dumps(name)) + 4 + _longest(inner) for name, inner in schema["properties"].items())
    if schema["type"] == "array":
        return 2 + schema["maxItems"] * (2 + _longest(schema["items"]))
    return max(len(json.dumps(word)) for word in schema["enum"])


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    if schema["type"] == "object":
        inner: dict[str, Any] = schema["properties"]
        return (
            isinstance(value, dict)
            and value.keys() == inner.keys()
            and all(_fits(value[name], inner[name]) for name in inner)
        )
    if schema["type"] == "array":
        return (
            isinstance(value, list)
            and schema["minItems"] <= len(value) <= schema["maxItems"]
            and all(_fits(each, schema["items"]) for each in value)
        )
    return value in schema["enum"]
