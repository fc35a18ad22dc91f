"""The command compare: parse, call two functions, print."""

import dataclasses
import json as json_module
from pathlib import Path
from typing import Annotated

import typer


def compare(
    dataset: Annotated[str, typer.Argument(help="A dataset folder, or a Hub repository's id.")],
    set_a: Annotated[str, typer.Argument(help="One of its description sets.")],
    set_b: Annotated[str, typer.Argument(help="Another one.")],
    out: Annotated[Path | None, typer.Option(help="Also write a page, with the most different pairs.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder, .zip, … with the photographs, where the dataset does not hold them.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the dataset.")] = None,
    features_a: Annotated[
        Path | None, typer.Option(help="npz of SET_A's texts, arrays image_id and features, from any encoder.")
    ] = None,
    features_b: Annotated[Path | None, typer.Option(help="The same of SET_B, from the same encoder.")] = None,
    experiment: Annotated[
        list[Path] | None, typer.Option(help="Experiment folder of train, for text-only accuracy; repeat it.")
    ] = None,
    different: Annotated[int, typer.Option(min=0, help="How many of the most different pairs.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show what changed between two description sets: lengths, words, flags, leaks, attributes, agreement.

    Example: vl-dermnet compare dataset internvl3-doctor qwen3-doctor --images photos --out compare.html
    """
    from rich.console import Console
    from rich.progress import track

    from dataset_card.compare.compare import CompareConfig
    from dataset_card.compare.compare import compare as compare_sets
    from dataset_card.compare.page import check_page, write_page
    from dataset_card.compare.tables import as_text

    console = Console(stderr=True)
    config = CompareConfig(
        dataset=dataset,
        set_a=set_a,
        set_b=set_b,
        revision=revision,
        features_a=features_a,
        features_b=features_b,
        experiments=tuple(experiment or ()),
        n_different=different,
    )
    if out is not None:
        check_page(out, dataset)  # before the work
    found = compare_sets(config, lambda pairs, total: track(pairs, "comparing", total, console=console, transient=True))
    if out is not None:

        def say(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

        write_page(out, found, dataset, images, say, revision)
    if json:
        typer.echo(json_module.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False))
        return
    typer.echo(as_text(found))
    if out is not None:
        typer.echo(f"page: {out}   (open it in a browser)")
