"""A dataset folder of photographs and of sentences that no model wrote, whose provenance says so."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from builders.build import BuildConfig, build
from builders.dataset_folder import CHECKSUMS, read_sets
from builders.errors import UserError
from builders.files import write_json, write_table
from builders.index import index_images, write_index
from builders.join_images import some
from builders.schema import DESCRIPTION_SCHEMA, SCHEMA_VERSION, Description, IndexRow, image_id_of, to_table

SET_NAME = "sentences"


def write_dataset(
    images: Path, text_of: Mapping[str, str], group_of: Mapping[str, str], written_from: str, work: Path
) -> Path:
    """The folder WORK/dataset, as `vl-dermnet build` writes it; kept where it is of the same texts and groups.

    `text_of` and `group_of` map the path of each file in `images`, a folder or a zip, to its sentence and to the lesion
    or patient that it is of: the clean protocol keeps one of these in one split. `written_from` names what the
    sentences were written from; it stands where else the name of a VLM does.
    Raises `UserError` where files have no sentence, or sentences no file.
    """
    dataset = work / "dataset"
    listed = [(path, text_of[path], group_of[path]) for path in sorted(text_of)]
    fingerprint = hashlib.sha256(json.dumps([SCHEMA_VERSION, written_from, listed]).encode()).hexdigest()
    if (dataset / CHECKSUMS).is_file() and read_sets(dataset)[0].run["fingerprint"] == fingerprint:
        return dataset
    index = index_images(images)
    known = {row.path for row in index}
    for paths, lack in ((known - text_of.keys(), "have no sentence"), (text_of.keys() - known, "are not there")):
        if paths:
            raise UserError(
                f"{len(paths)} photographs of {images} {lack}: {some(sorted(paths))}",
                f"give the photographs that {written_from} lists, and no others",
            )
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    described = [_describe(row, text_of[row.path], now) for row in index if row.status == "ok"]
    run = work / "sentences"
    write_json(
        run / "run.json",
        {
            "schema_version": SCHEMA_VERSION,
            "set_name": SET_NAME,
            "fingerprint": fingerprint,
            "model": {"id": written_from},
            "prompt": {"name": "none", "text": "", "rendered": "", "sha256": hashlib.sha256(b"").hexdigest()},
            "engine": {"id": "scripted", "kind": "scripted"},
            "texts": f"One sentence per photograph, written by a program from {written_from}; no model saw anything.",
            "created_at": now,
        },
    )
    write_index(run / "index.parquet", index)
    write_table(run / "parts" / "part-0.parquet", to_table(described, DESCRIPTION_SCHEMA))
    write_json(run / "summary.json", {"status": {"ok": len(described)}})
    groups = {image_id_of(path): group for path, group in group_of.items()}
    build(BuildConfig(images=images, runs=(run,), out=dataset), groups=groups)
    return dataset


def _describe(row: IndexRow, text: str, now: str) -> Description:
    return Description(
        image_id=row.image_id,
        image_sha256=row.image_sha256,
        status="ok",
        reason="",
        description=text,
        finish_reason="stop",
        n_image_tokens=0,
        n_prompt_tokens=0,
        n_output_tokens=0,
        n_tiles=0,
        attempt=1,
        retries=0,
        temperature=0.0,
        flags=(),
        findings="",
        engine_id="scripted",
        described_at=now,
    )
