"""A finished run folder over an index, written without any model: what `build` needs, and nothing asked."""

import hashlib
import random
from pathlib import Path

from builders.files import write_json, write_table
from builders.index import read_index, write_index
from builders.schema import DESCRIPTION_SCHEMA, Description, IndexRow, to_table

AT = "2026-01-02T03:04:05Z"
N_WORDS = 80
WORDS = [
    "a",
    "the",
    "of",
    "with",
    "on",
    "skin",
    "lesion",
    "plaque",
    "papule",
    "macule",
    "nodule",
    "border",
    "centre",
    "surface",
    "scale",
    "crust",
    "erythema",
    "pigment",
    "brown",
    "red",
    "pale",
    "pink",
    "violet",
    "round",
    "oval",
    "irregular",
    "sharp",
    "diffuse",
    "small",
    "large",
    "single",
    "several",
    "grouped",
    "scattered",
    "trunk",
    "arm",
    "hand",
    "leg",
    "foot",
    "face",
    "smooth",
    "rough",
    "raised",
    "flat",
    "shiny",
    "dry",
    "moist",
    "surrounding",
    "visible",
    "consistent",
    "may",
    "suggest",
    "however",
]


def write_scripted_run(run: Path, index_file: Path, name: str = "scripted") -> None:
    """Write `run`: one text of `N_WORDS` words per usable image, which its bytes and the set's `name` decide."""
    index = read_index(index_file)
    prompt = "You are a dermatologist. Describe what you see."
    write_json(
        run / "run.json",
        {
            "schema_version": 1,
            "set_name": name,
            "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
            "model": {"id": f"example/{name}", "revision": hashlib.sha256(b"revision").hexdigest()[:40]},
            "prompt": {
                "name": "doctor",
                "text": prompt,
                "rendered": prompt,
                "sha256": hashlib.sha256(prompt.encode()).hexdigest(),
            },
            "sampling": {"temperature": 0.0, "max_tokens": 256},
            "preprocessing": {"max_dynamic_patch": 1},
            "engine": {"id": "scripted", "kind": "scripted", "dtype": "float32", "versions": {}},
            "machine": {},
            "command": "vl-dermnet annotate photographs --out run --engine scripted",
            "created_at": AT,
        },
    )
    write_index(run / "index.parquet", index)
    table = to_table([_describe(row, name) for row in index], DESCRIPTION_SCHEMA)
    write_table(run / "parts" / "part-0.parquet", table)
    n_ok = sum(row.status == "ok" for row in index)
    write_json(run / "summary.json", {"status": {"ok": n_ok}, "images_per_s": 1.0})


def _describe(row: IndexRow, name: str) -> Description:
    is_ok = row.status == "ok"
    words = random.Random(f"{name} {row.image_sha256}").choices(WORDS, k=N_WORDS) if is_ok else []
    return Description(
        image_id=row.image_id,
        image_sha256=row.image_sha256,
        status="ok" if is_ok else "refused",
        reason=row.reason,
        description=" ".join(words).capitalize() + "." if is_ok else "",
        finish_reason="stop" if is_ok else "",
        n_image_tokens=256 if is_ok else 0,
        n_prompt_tokens=300 if is_ok else 0,
        n_output_tokens=len(words),
        n_tiles=1 if is_ok else 0,
        attempt=1,
        retries=0,
        temperature=0.0,
        findings="",
        flags=(),
        engine_id="scripted-0",
        described_at=AT,
    )
