"""A few photographs described as a finished run described its own: what `predict` asks for where no text is given."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.progress import Progress
from builders.errors import UserError
from builders.files import sha256_of
from builders.run_folder import read_run

NOT_A_MODEL = ("scripted", "openai")  # kinds of engine whose model is not loaded here


def describe_few(
    images: list[Path], made_by: dict[str, Any] | None, vlm: str | None, engine: str, progress: Progress
) -> list[str]:
    """One description per image, by the model, prompt and settings of `made_by`, which is a run's run.json.

    `vlm` names another model. The photographs are copied to a scratch folder under numbers, so no file name is seen.
    Raises `UserError` where nothing tells which model to ask, and where an image cannot be described, with the reason.
    """
    facts = made_by or {}
    kind = facts.get("engine", {}).get("kind", "")
    if vlm is None and (not facts.get("model") or kind in NOT_A_MODEL):
        known = f"its descriptions came from the engine '{kind}'" if kind else "it tells no model of its descriptions"
        raise UserError(f"nothing to describe the photographs with: {known}", "--vlm MODEL, or --no-describe")
    sampling, prompt = facts.get("sampling", {}), facts.get("prompt", {})
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        photographs = scratch / "photographs"
        photographs.mkdir()
        for number, image in enumerate(images):
            shutil.copyfile(image, photographs / f"{number:06d}{image.suffix}")
        asked = "doctor"
        if prompt.get("text"):
            (scratch / "prompt.md").write_text(prompt["text"], encoding="utf-8")
            asked = str(scratch / "prompt.md")
        revision = None if vlm else facts["model"].get("revision")
        config = AnnotateConfig(
            images=str(photographs),
            out=scratch / "run",
            model=vlm or facts["model"]["id"],
            revision=None if revision is None or revision.startswith("sha256:") else revision,
            engine=engine,
            prompt=asked,
            max_tokens=sampling.get("max_tokens", 256),
            temperature=sampling.get("temperature", 0.0),
            seed=sampling.get("seed", 0),
            dtype=facts.get("engine", {}).get("dtype", "auto"),
            max_dynamic_patch=facts.get("preprocessing", {}).get("max_dynamic_patch"),
            n_workers=0,
            preflight=False,
        )
        run(config, progress=progress)
        rows = {row.image_sha256: row for row in read_run(config.out).descriptions.values()}
        told: list[str] = []
        for image in images:
            row = rows.get(sha256_of(image))
            if row is None or row.status != "ok":
                why = "the run did not get to it" if row is None else row.reason
                raise UserError(f"{image} could not be described: {why}", "--description TEXT, or --no-describe")
            told.append(row.description)
    return told
