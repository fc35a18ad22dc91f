"""The command gallery: parse, call one function, print."""

import dataclasses
import json as json_module
from pathlib import Path
from typing import Annotated

import typer


def gallery(
    dataset: Annotated[str, typer.Argument(help="A dataset folder, or a Hub repository's id.")],
    out: Annotated[Path, typer.Option(help="The page to write; a large one has a folder beside it.")] = Path(
        "gallery.html"
    ),
    images: Annotated[
        str | None, typer.Option(help="Folder, .zip, … with the photographs, where the dataset does not hold them.")
    ] = None,
    set_name: Annotated[
        list[str] | None, typer.Option("--set", help="Description set to show; repeat it. All by default.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the dataset.")] = None,
    thumbnail_px: Annotated[int, typer.Option(min=16, max=4096, help="A thumbnail's longer side.")] = 384,
    one_page_rows: Annotated[
        int, typer.Option(min=0, help="Up to so many photographs, everything is in the one file.")
    ] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Write a page to look through DATASET: photographs with their descriptions, side by side, and to review them.

    It opens from the disk, in any browser, and sends nothing anywhere. A reviewer's marks stay in the browser until
    they are exported as CSV, for `vl-dermnet build --review`.

    Example: vl-dermnet gallery dataset --images photos --out gallery.html
    """
    from rich.console import Console
    from rich.progress import track

    from dataset_card.gallery.write import GalleryConfig, write_gallery

    console = Console(stderr=True)
    config = GalleryConfig(
        dataset=dataset,
        out=out,
        images=images,
        set_names=tuple(set_name or ()),
        revision=revision,
        thumbnail_px=thumbnail_px,
        one_page_rows=one_page_rows,
    )
    summary = write_gallery(
        config,
        track=lambda items, total, what: track(items, what, total, console=console, transient=True),
        say=lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True),
    )
    if json:
        typer.echo(json_module.dumps(dataclasses.asdict(summary), indent=2, ensure_ascii=False, default=str))
        return
    by = ", ".join(summary.sets)
    typer.echo(f"{summary.n_photographs} photographs, {summary.n_pictures} with a picture, described by {by}")
    typer.echo(f"gallery: {summary.out}   (open it in a browser)")
