"""The command audit: parse, call one function, print."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer


def audit(
    images: Annotated[
        str, typer.Argument(help="Folder, .zip, …; or a list of files: an index, or CSV or Parquet with a column path.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, or an older audit to replace.")],
    index: Annotated[Path | None, typer.Option(help="An index of IMAGES made before; saves a pass.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="npz or Parquet with columns path or sha256, and one per encoder.")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Column of FEATURES to use; repeat it. Default: all.")
    ] = None,
    feature_ratio: Annotated[
        float, typer.Option(min=0, max=0.99, help="Distance of near-copies, as a share of that to the tenth neighbour.")
    ] = 0.6,
    copies: Annotated[
        Path | None, typer.Option(help="For a list without sha256: files (path, sha256) known to repeat others.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of paths and known groups, to hold those found against.")
    ] = None,
    known_column: Annotated[str, typer.Option(help="Column of KNOWN with the groups, like lesion_id.")] = "group",
    seed: Annotated[int, typer.Option(help="Of the derived splits, and of what is drawn.")] = 0,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; one per core by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Find copies, near-copies, contradicting labels and leaks between splits, and derive splits without them.

    Example: vl-dermnet audit photos --out audit
    """
    from builders.audit.config import AuditConfig
    from builders.audit.figures import figures
    from builders.audit.job import REPORT_FILE, run_audit

    config = AuditConfig(
        images=images,
        out=out,
        index=index,
        copies=copies,
        features=features,
        encoders=tuple(encoder or ()),
        feature_ratio=feature_ratio,
        known=known,
        known_column=known_column,
        seed=seed,
        n_workers=workers,
    )
    found, seconds = run_audit(config, say=lambda message: typer.echo(message, err=True))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found) | {"seconds": seconds}, indent=2, ensure_ascii=False))
        return
    for line in figures(found):
        typer.echo(line)
    typer.echo(f"seconds: {', '.join(f'{part} {spent:.1f}' for part, spent in seconds.items())}", err=True)
    typer.echo(f"audit: {out}\nread it: {out / REPORT_FILE}")
