"""The command audit: parse, call one function, print."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

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
    seed: Annotated[int, typer.Option(help="Of the derived splits, and of what is drawn.")] = 0,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; one per core by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Find copies, near-copies, contradicting labels and leaks between splits, and derive splits without them.

    Example: vl-dermnet audit photos --out audit
    """
    from builders.audit.config import AuditConfig
    from builders.audit.job import REPORT_FILE, run_audit

    config = AuditConfig(
        images=images,
        out=out,
        index=index,
        copies=copies,
        features=features,
        encoders=tuple(encoder or ()),
        feature_ratio=feature_ratio,
        seed=seed,
        n_workers=workers,
    )
    found, seconds = run_audit(config, say=lambda message: typer.echo(message, err=True))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found) | {"seconds": seconds}, indent=2, ensure_ascii=False))
        return
    for line in _lines(found):
        typer.echo(line)
    typer.echo(f"seconds: {', '.join(f'{part} {spent:.1f}' for part, spent in seconds.items())}", err=True)
    typer.echo(f"audit: {out}\nread it: {out / REPORT_FILE}")


def _lines(audit: Any) -> list[str]:
    """The figures that a person asks for first, one per line."""
    lines = [
        f"files: {audit.contents.n_files:,}, refused {audit.contents.n_refused:,}",
        *audit.dermnet,
        f"surplus byte copies: {audit.byte_copies.n_surplus:,} {_counts(audit.byte_copies.n_surplus_per_split)}",
        f"groups: {audit.groups.n_groups:,} of {audit.groups.n_files:,} files, {audit.groups.n_across_splits:,} across"
        f" splits, {audit.groups.n_conflicts:,} with contradicting labels",
        f"links: {_counts(audit.groups.n_links)}",
        f"file names under several labels: {audit.file_names.n_in_several_labels:,}",
    ]
    for split, lookup in audit.file_names.lookup.items():
        lines.append(f"label of {split} by file name alone: {100 * lookup.accuracy:.2f} %")
    for split, curve in (audit.features.curves if audit.features else {}).items():
        fifths = "/".join(f"{100 * fifth.accuracy:.1f}" for fifth in curve.quintiles)
        lines.append(f"nearest training file, {split}: {100 * curve.accuracy:.1f} %; near to far: {fifths} %")
    if audit.marks:
        lines.append(f"watermark candidates: {len(audit.marks.marks):,}")
    if audit.splits:
        lines.append(f"split_clean: {_counts(audit.splits.n_clean)}")
    return [*lines, *(f"not run: {part}: {reason}" for part, reason in audit.not_run.items())]


def _counts(counts: dict[str, int]) -> str:
    return f"({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else ""
