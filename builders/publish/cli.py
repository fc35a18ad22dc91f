"""The command publish: parse, call one function, print."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from builders.publish.job import Preview, Published


def publish(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder of build, or a model folder.")],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub; made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody read it; private otherwise.")] = False,
    gated: Annotated[bool, typer.Option("--gated", help="Readers share their name first; with --public.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Propose a pull request instead of committing.")] = False,
    tag: Annotated[str | None, typer.Option(help="Name for this version, like v1.0; never moved.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; change nothing.")] = False,
    i_have_the_rights: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who holds the rights to the images in it; goes on record.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that somebody else changed on the Hub.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Publish DATASET to the Hub in one commit, read it back, and print the line that loads it.

    The repository is private unless --public. Files that publish did not write are kept. After any failure, type the
    same command again. A dataset with images is refused unless --i-have-the-rights names who holds them.

    Example: vl-dermnet publish dataset me/derm-descriptions --tag v1.0
    """
    from builders.publish import job
    from builders.publish.config import PublishConfig

    config = PublishConfig(
        folder=dataset,
        repo_id=repo_id,
        public=public,
        gated=gated,
        pr=pr,
        tag=tag,
        rights_holder=i_have_the_rights,
        overwrite=overwrite,
    )
    done = job.preview(config, _say) if dry_run else job.publish(config, _say)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=2, ensure_ascii=False))
    elif isinstance(done, job.Preview):
        _print_preview(done)
    else:
        _print_published(done)


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _print_preview(preview: "Preview") -> None:
    door = "private" if preview.is_private else "public"
    made = "" if preview.is_there else ", which would be made"
    typer.echo(f"dry run: nothing is changed in the {door} {preview.repo_type} repository {preview.repo_id}{made}")
    for fate, path, n_bytes in preview.files:
        typer.echo(f"{fate:<8}{f'{n_bytes:,}' if n_bytes else '':>15}  {path}")
    n_sent = sum(fate in ("add", "replace") for fate, _, _ in preview.files)
    typer.echo(f"to send: {preview.n_new_bytes:,} of {preview.n_total_bytes:,} bytes, in {n_sent} files")
    typer.echo("Xet sends less where the Hub knows parts of a file already")


def _print_published(published: "Published") -> None:
    where = published.pull_request or published.url
    typer.echo(f"{'private' if published.is_private else 'public'}: {where}")
    typer.echo(f"commit: {published.commit}")
    if published.n_files_sent or published.n_files_removed:
        typer.echo(f"sent: {published.n_files_sent} files, {published.n_new_bytes:,} bytes at most")
    else:
        typer.echo("sent: nothing, it was all there")
    if published.n_files_removed:
        typer.echo(f"removed: {published.n_files_removed} files of the version before")
    if published.n_files_kept:
        typer.echo(f"kept: {published.n_files_kept} files that publish did not write")
    typer.echo("checked: every file is there; small ones were read back, of large ones the Hub states the same sha256")
    typer.echo(f"load it: {published.load}")
