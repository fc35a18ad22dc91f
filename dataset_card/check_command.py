"""The command check: parse, call one function, print."""

import dataclasses
import json as json_module
from pathlib import Path
from typing import Annotated

import typer

EXIT_FAULTS = 1


def check(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.", exists=True, file_okay=False)],
    images: Annotated[
        Path | None, typer.Option(help="The photographs, folder or archive: are they still those that were described?")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Check every contract of DATASET and every number in its card; change nothing, and exit with 1 at any fault.

    All faults are listed: the file, what stands there, and what may. Checked are checksums, shards and their schema,
    every row, copies and splits, provenance, README.md, croissant.json, the plots, and the photographs' bytes.

    Example: vl-dermnet check dataset --images photos
    """
    from builders.check import check_dataset
    from dataset_card.check_card import check_card

    report = check_dataset(dataset, images, check_card)
    if json:
        told = {"is_sound": not report.faults, **dataclasses.asdict(report)}
        typer.echo(json_module.dumps(told, indent=2, ensure_ascii=False, default=str))
    else:
        for fault in report.faults:
            where = f"{fault.file}, {fault.place}" if fault.place else fault.file
            typer.echo(f"{where}\n  seen:    {fault.seen}\n  allowed: {fault.allowed}")
        sets = f"{report.n_sets} description set{'s' * (report.n_sets != 1)}"
        typer.echo(f"{sets}, {report.n_rows} rows, {len(report.faults) or 'no'} faults")
        for sentence in report.not_checked:
            typer.echo(f"not checked: {sentence}", err=True)
    if report.faults:
        raise typer.Exit(EXIT_FAULTS)
