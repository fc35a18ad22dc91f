"""The commands table and report, of an experiment that was trained: parse, call one function, print."""

import sys
from pathlib import Path
from typing import Annotated

import typer

PIPED_WIDTH = 160


def table(
    experiment: Annotated[Path, typer.Argument(help="An experiment folder, as `train` writes it.")],
    json: Annotated[bool, typer.Option("--json", help="For machines, numbers unrounded.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="For a README.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="For a paper.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet, numbers unrounded.")] = False,
) -> None:
    """Print the paper's table beside ours, with intervals and paired tests, from the experiment's predictions alone.

    Example: vl-dermnet table exp --markdown
    """
    from rich.console import Console

    from builders.errors import UserError
    from train.table import experiment_table, table_json

    if json + markdown + latex + csv > 1:
        raise UserError("a table is printed in one format at a time", "give one of --json, --markdown, --latex, --csv")
    found = experiment_table(experiment)
    if json:
        typer.echo(table_json(found))
    elif markdown or latex or csv:
        typer.echo(found.as_markdown() if markdown else found.as_latex() if latex else found.as_csv(), nl=False)
    else:
        # A pipe has no width: never fold numbers there.
        Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(found.as_rich())


def report(
    experiment: Annotated[Path, typer.Argument(help="An experiment folder, as `train` writes it.")],
    images: Annotated[
        str | None, typer.Option(help="Folder or zip with the photographs; by default where they were in training.")
    ] = None,
) -> None:
    """Write EXPERIMENT/report.html again: table, curves, classes, calibration, attention, errors, in one page.

    Example: vl-dermnet report exp --images photos
    """
    from train.report.write import write_report

    typer.echo(write_report(experiment, images, say=lambda message: typer.echo(message, err=True)))
