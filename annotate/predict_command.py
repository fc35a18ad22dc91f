"""The command predict: a photograph described by the run's own VLM where nobody describes it, then classified."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from annotate.describe_few import Asked, Described
    from train.predict import Predictor

MACHINE_WRITTEN = "written by a machine, reviewed by nobody"
WITH_A_TEXT = "--description TEXT, --vlm MODEL, or --endpoint URL (--describe fails where there is none)"


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder: EXP/models/NAME.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    description: Annotated[
        str | None, typer.Option(help="What is seen; without it the VLM of the training set is asked, if it can be.")
    ] = None,
    vlm: Annotated[str | None, typer.Option(help="Ask this model for the description: Hub id, folder, name.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of --vlm.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that the checkpoint of the VLM brings; needs a commit.")
    ] = False,
    engine: Annotated[str, typer.Option(help="For the description: auto | vllm | transformers")] = "auto",
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Ask a server of the VLM for the description; repeat it for several.")
    ] = None,
    describe: Annotated[
        bool | None,
        typer.Option(
            "--describe/--no-describe",
            help="Fail where no description can be had; or ask for none. By default it is asked for, and where it "
            "cannot be had the image alone answers, and the reason is told.",
        ),
    ] = None,
    heat_map: Annotated[
        Path | None, typer.Option(help="PNG of where attention pooling looks; with --json words, too.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="For machines: every class.")] = False,
) -> None:
    """Classify photographs with a trained model, described first where it reads text. Not for clinical use.

    Example: vl-dermnet predict exp/models/attention_pooling-official-0 a.jpg --description 'A red …'
    """
    from dataclasses import asdict
    from json import dumps

    from builders.errors import UserError
    from train.predict import Predictor

    if description is not None and len(images) > 1:
        raise UserError(f"--description speaks of one image, and {len(images)} were given", "ask for one at a time")
    if heat_map is not None and (len(images) > 1 or heat_map.suffix.lower() != ".png"):
        raise UserError(f"--heat-map {heat_map} is one PNG of one image", "--heat-map map.png, and one image at a time")
    predictor = Predictor(model)
    if heat_map is not None:
        predictor.check_explains()
    asked = _asked(vlm, revision, trust_remote_code, engine, endpoint or [])
    told = _texts(predictor, images, description, asked, describe)
    is_asked = description is None and describe is not False and predictor.config.text is not None
    for why in dict.fromkeys(each.why_missing for each in told if each.why_missing):  # each reason once
        which = [str(image) for image, each in zip(images, told, strict=True) if each.why_missing == why]
        typer.echo(f"note: no description of {', '.join(which)}: {why}\n  to have one: {WITH_A_TEXT}", err=True)
    answers: list[dict[str, Any]] = []
    for image, found in zip(images, told, strict=True):
        text = found.text or None
        each = predictor.predict(image, text)
        words = _write_heat_map(predictor, image, text, heat_map) if heat_map else []
        if json:
            written: dict[str, Any] = {"description": found.text, "is_machine_written": is_asked and text is not None}
            if found.why_missing:
                written["description_missing"] = {"why": found.why_missing, "fix": WITH_A_TEXT}
            written |= {"words": words} if heat_map else {}
            answers.append({**asdict(each), "message": each.message, **written})
            continue
        typer.echo(each.image)
        for name, probability in list(each.probabilities.items())[:top]:
            typer.echo(f"  {100 * probability:5.1f} %  {name}")
        if is_asked and text is not None:
            typer.echo(f"  description, {MACHINE_WRITTEN}: {' '.join(text.split())}")
        if each.message:
            typer.echo(f"note: {each.image}: {each.message}", err=True)
    if json:
        typer.echo(dumps({"notice": predictor.notice, "predictions": answers}, indent=2, ensure_ascii=False))
    else:
        typer.echo(predictor.notice, err=True)


def _write_heat_map(predictor: "Predictor", image: Path, text: str | None, out: Path) -> list[tuple[str, float]]:
    """Write the PNG; the words of the description with their weights."""
    from builders.errors import UserError
    from builders.files import write_atomic
    from train.report.maps import heat_image

    found = predictor.explain(image, text)
    if found.patches is None:
        raise UserError(
            f"the patches of {predictor.folder}'s image backbone have no known place", "leave --heat-map out"
        )
    picture = heat_image(found.patches, found.seen)
    write_atomic(out, lambda part: picture.save(part, "PNG"))
    return found.words


def _asked(
    vlm: str | None, revision: str | None, trust_remote_code: bool, engine: str, endpoints: list[str]
) -> "Asked":
    """Who is asked for descriptions. Raises `UserError` where options exclude each other."""
    from annotate.describe_few import Asked
    from annotate.engines import ENGINES
    from builders.errors import UserError, choose

    choose("engine", engine, ["auto", *ENGINES])
    if endpoints and engine not in ("auto", "openai"):
        raise UserError(f"--endpoint names a server, and --engine {engine} loads the model here", "leave one out")
    if endpoints and trust_remote_code:
        raise UserError("--endpoint names a server, and --trust-remote-code is of a model here", "leave one out")
    if revision is not None and vlm is None:
        raise UserError(f"--revision {revision} is of --vlm, and none is named", "--vlm MODEL, or leave it out")
    return Asked(vlm, revision, trust_remote_code, engine, tuple(endpoints))


def _texts(
    predictor: "Predictor", images: list[Path], description: str | None, asked: "Asked", describe: bool | None
) -> "list[Described]":
    """A description per image: the one that was given, a VLM's, or none.

    Raises `UserError` where there has to be one and cannot: with --describe, and for a model that reads nothing else.
    """
    from annotate.describe_few import Described, describe_few
    from annotate.progress import Progress
    from builders.errors import UserError

    if description is not None or predictor.config.text is None:
        return [Described(description or "") for _ in images]
    told = [Described("") for _ in images]
    if describe is not False:
        predictor.check(images)  # before an engine is started
        made_by = predictor.config.training.get("described_by")
        try:
            told = describe_few(images, made_by, asked, Progress())
        except UserError as error:  # nobody can be asked here: every photograph goes without, and is told the reason
            told = [Described("", str(error)) for _ in images]
    must = bool(describe) or predictor.config.image is None
    for image, each in zip(images, told, strict=True):
        if must and not each.text:
            needs = "--describe asks for one" if describe else f"{predictor.folder} reads nothing else"
            raise UserError(
                f"{image} has no description, and {needs}" + (f": {each.why_missing}" if each.why_missing else ""),
                "--description TEXT, --vlm MODEL, or --endpoint URL",
            )
    return told
