"""The command predict: a photograph described by the run's own VLM where nobody describes it, then classified."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from train.predict import Predictor

MACHINE_WRITTEN = "written by a machine, reviewed by nobody"


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder: EXP/models/NAME.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    description: Annotated[
        str | None, typer.Option(help="What is seen; without it the VLM of the training set is asked, if it can be.")
    ] = None,
    vlm: Annotated[str | None, typer.Option(help="Ask this model for the description: Hub id, folder, name.")] = None,
    engine: Annotated[str, typer.Option(help="For the description: auto | vllm | transformers")] = "auto",
    describe: Annotated[bool, typer.Option(help="Ask for a description where none is given.")] = True,
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
    texts: list[str | None] = [description] * len(images)
    is_machine_written = description is None and describe and predictor.config.text is not None
    if is_machine_written:
        predictor.check(images)  # before an engine is started
        texts = list(_described(images, predictor.config.training.get("described_by"), vlm, engine))
    answers: list[dict[str, Any]] = []
    for image, text in zip(images, texts, strict=True):
        each = predictor.predict(image, text)
        words = _write_heat_map(predictor, image, text, heat_map) if heat_map else []
        if json:
            written = {"description": text or "", "is_machine_written": is_machine_written}
            written |= {"words": words} if heat_map else {}
            answers.append({**asdict(each), "message": each.message, **written})
            continue
        typer.echo(each.image)
        for name, probability in list(each.probabilities.items())[:top]:
            typer.echo(f"  {100 * probability:5.1f} %  {name}")
        if is_machine_written:
            typer.echo(f"  description, {MACHINE_WRITTEN}: {' '.join((text or '').split())}")
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


def _described(images: list[Path], made_by: dict[str, Any] | None, vlm: str | None, engine: str) -> list[str]:
    from annotate.describe_few import describe_few
    from annotate.progress import Progress

    return describe_few(images, made_by, vlm, engine, Progress())
