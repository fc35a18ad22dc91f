"""Findings against the vocabulary that the model was held to."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.check.fault import shown
from builders.check.row_rules import Complaint, Row
from builders.dataset_folder import DescriptionSet

NO_FINDINGS = "no_findings"  # the flag of a row whose model gave none of the schema
# Data of the package, not code of another folder: the schemas stand beside the prompts that ask for them.
_SCHEMAS = Path(__file__).resolve().parents[2] / "annotate" / "schemas"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The JSON Schema of a set's findings; None where this version does not know it, and only their form is checked."""

    name: str
    json_schema: dict[str, Any] | None

    def complaints(self, row: Row) -> list[Complaint]:
        """What is wrong with the findings of one row."""
        findings, is_flagged = row["findings"], NO_FINDINGS in row["flags"]
        if not findings or is_flagged:
            if bool(findings) == is_flagged:
                allowed = f"empty where the flag {NO_FINDINGS} is set, and only there"
                return [("findings", shown(findings), allowed)]
            return []
        try:
            value = json.loads(findings)
        except (ValueError, RecursionError) as error:
            return [("findings", f"{shown(findings)}: {error}", "JSON")]
        if self.json_schema is None:
            return [] if isinstance(value, dict) else [("findings", shown(findings), "a JSON object")]
        wrong = misfit(value, self.json_schema)
        return [("findings" + place, seen, allowed) for place, seen, allowed in wrong]


def vocabulary_of(described: DescriptionSet) -> Vocabulary | None:
    """The vocabulary of a set: from its own provenance, or the bundled one of the same name and hash.

    None for a set without findings.
    """
    schema = described.run.get("schema")
    if not schema:
        return None
    name = str(schema.get("name"))
    if _is_closed(schema.get("json_schema")):
        return Vocabulary(name, schema["json_schema"])
    bundled = {path.stem: path for path in _SCHEMAS.glob("*.json")}
    if name in bundled:
        json_schema = json.loads(bundled[name].read_text(encoding="utf-8"))
        prompt = bundled[name].with_suffix(".md").read_text(encoding="utf-8").strip()
        digest = hashlib.sha256((json.dumps(json_schema, sort_keys=True) + prompt).encode()).hexdigest()
        if digest == schema.get("sha256"):
            return Vocabulary(name, json_schema)
    return Vocabulary(name, None)


def _is_closed(schema: Any, depth: int = 8) -> bool:
    """Whether a schema is of the form that `misfit` reads: closed objects, bounded arrays, strings from an enum."""
    if not isinstance(schema, dict) or not depth:
        return False
    match schema.get("type"):
        case "object":
            inner = schema.get("properties")
            return isinstance(inner, dict) and all(_is_closed(each, depth - 1) for each in inner.values())
        case "array":
            bounds = (schema.get("minItems"), schema.get("maxItems"))
            return all(isinstance(each, int) for each in bounds) and _is_closed(schema.get("items"), depth - 1)
        case _:
            words = schema.get("enum")
            return isinstance(words, list) and all(isinstance(each, str) for each in words)


def misfit(value: Any, schema: dict[str, Any]) -> list[Complaint]:
    """Where `value` leaves a schema of objects, arrays, and strings from an enum: place, value seen, allowed."""
    match schema["type"]:
        case "object":
            inner: dict[str, Any] = schema["properties"]
            if not isinstance(value, dict) or value.keys() != inner.keys():
                return [("", shown(value), f"an object with {', '.join(inner)}")]
            return [(f".{name}{p}", seen, ok) for name in inner for p, seen, ok in misfit(value[name], inner[name])]
        case "array":
            least, most = schema["minItems"], schema["maxItems"]
            if not isinstance(value, list) or not least <= len(value) <= most:
                return [("", shown(value), f"a list of {least} to {most}")]
            return [(f"[{n}]{p}", s, ok) for n, each in enumerate(value) for p, s, ok in misfit(each, schema["items"])]
        case _:
            return [] if value in schema["enum"] else [("", shown(value), ", ".join(schema["enum"]))]
