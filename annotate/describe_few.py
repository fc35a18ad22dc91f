"""A few photographs described as a finished run described its own: what `predict` asks for where no text is given."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.config import DEFAULT_RETRY_FLAGS, AnnotateConfig
from annotate.engine_args import INSTEAD
from annotate.engines import choose_engine
from annotate.job import run
from annotate.models import Model, resolve_model
from annotate.progress import Progress
from annotate.publishable import HIDDEN
from builders.errors import UserError
from builders.files import sha256_of
from builders.run_folder import read_run

NEEDS_A_SERVER = "openai"  # the kind of engine that asks servers, which are named anew each time


_OF_FILES = re.compile(r"dir|path|file|template|plugin")  # in an engine argument's name


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked: by default the model of a run, loaded here.

    `vlm` names another one, and `revision` its branch, tag or commit; `trust_remote_code` runs code that the checkpoint
    brings, and needs a commit. `engine` is a name of `annotate.engines.ENGINES`, or `auto`. `endpoints` are
    OpenAI-compatible servers of the model, which then is not loaded here, and `engine` and code play no part.
    """

    vlm: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    engine: str = "auto"
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """What a VLM wrote of one photograph; where `text` is empty, `why_missing` tells why it wrote none."""

    text: str
    why_missing: str = ""


def describe_few(
    images: list[Path], made_by: dict[str, Any] | None, asked: Asked, progress: Progress
) -> list[Described]:
    """One description per image, with the prompt and settings of `made_by`, which is a run's run.json.

    Engine arguments are of one engine: another one is asked without them.

    The photographs are copied to a scratch folder under numbers, so no file name is seen. An image that the model does
    not describe has an empty text. Raises `UserError` where nothing tells which model to ask, and where it cannot be
    asked: packages or weights that are not here or other ones, an engine that does not start, servers that do not
    answer.
    """
    facts = made_by or {}
    kind = facts.get("engine", {}).get("kind", "")
    if asked.vlm is None and (not facts.get("model") or kind == "scripted"):
        known = f"its descriptions came from the engine '{kind}'" if kind else "it tells no model of its descriptions"
        raise UserError(f"nothing to describe the photographs with: {known}", "--vlm MODEL")
    if asked.vlm is None and kind == NEEDS_A_SERVER and not asked.endpoints:
        raise UserError(
            f"the descriptions of its training set came from {facts['model']['id']} on a server, and none is named",
            "--endpoint URL of a server of it, or --vlm MODEL to load one here",
        )
    sampling, prompt = facts.get("sampling", {}), facts.get("prompt", {})
    model, revision = asked.vlm or facts["model"]["id"], asked.revision
    if asked.vlm is None:
        recorded = facts["model"].get("revision")
        revision = None if recorded is None or recorded.startswith("sha256:") else recorded
    if not asked.endpoints:
        _compare_checkpoints(facts, asked, resolve_model(model, revision, asked.trust_remote_code), progress)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        photographs = scratch / "photographs"
        photographs.mkdir()
        for number, image in enumerate(images):
            shutil.copyfile(image, photographs / f"{number:06d}{image.suffix}")
        named = "doctor"
        if prompt.get("text"):
            (scratch / "prompt.md").write_text(prompt["text"], encoding="utf-8")
            named = str(scratch / "prompt.md")
        config = AnnotateConfig(
            images=str(photographs),
            out=scratch / "run",
            model=model,
            revision=revision,
            trust_remote_code=asked.trust_remote_code,
            engine=NEEDS_A_SERVER if asked.endpoints else asked.engine,
            engine_args={"endpoint": list(asked.endpoints)} if asked.endpoints else _engine_args(facts, asked),
            prompt=named,
            max_tokens=sampling.get("max_tokens", 256),
            temperature=sampling.get("temperature", 0.0),
            seed=sampling.get("seed", 0),
            retries=sampling.get("retries", 2),
            retry_flags=tuple(sampling.get("retry_flags", DEFAULT_RETRY_FLAGS)),
            dtype=facts.get("engine", {}).get("dtype", "auto"),
            # A server's tiles are set where it is started.
            max_dynamic_patch=None if asked.endpoints else facts.get("preprocessing", {}).get("max_dynamic_patch"),
            n_workers=0,
            preflight=False,
        )
        run(config, progress=progress)
        rows = {row.image_sha256: row for row in read_run(config.out).descriptions.values()}
        told: list[Described] = []
        for image in images:
            row = rows.get(sha256_of(image))
            if row is None or row.status != "ok":
                why = "the run did not get to it" if row is None else row.reason
                told.append(Described("", f"it could not be described: {why}"))
            else:
                told.append(Described(row.description, "" if row.description.strip() else "the answer was empty"))
        return told


def _compare_checkpoints(facts: dict[str, Any], asked: Asked, here: Model, progress: Progress) -> None:
    """Raise `UserError` where the folder with the model's name holds another model; where --vlm names it, say so."""
    recorded, kind = facts.get("model", {}), facts.get("engine", {}).get("kind")
    if not recorded.get("revision") or here.revision == recorded["revision"] or kind == NEEDS_A_SERVER:
        return  # which revision a server has, it does not say
    difference = (
        f"the descriptions of its training set came from {recorded['id']} at {recorded['revision']}, "
        f"and {here.id} here is {here.revision}"
    )
    if asked.vlm is None:
        raise UserError(difference, f"--vlm FOLDER of that checkpoint, or --vlm {recorded['id']} to ask this one")
    progress.say(f"note: {difference}")


def _engine_args(facts: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """Those of the run, where the same engine is asked for the same model.

    Not what its run.json hides, nor what names files or folders, of which it tells the last part alone.
    """
    engine = facts.get("engine", {})
    model = facts.get("model", {}).get("id")
    if asked.vlm not in (None, model) or choose_engine(asked.engine)[0] != engine.get("kind"):
        return {}
    args: dict[str, Any] = engine.get("args", {})
    left_out = {name for name, value in args.items() if HIDDEN in str(value) or _OF_FILES.search(name)}
    return {name: value for name, value in args.items() if name not in left_out and name not in INSTEAD}
