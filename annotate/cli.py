"""The command line `vl-dermnet`: it parses, calls one function, prints. Results on stdout, the rest on stderr."""

import atexit
import dataclasses
import errno
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotate.bench_command import bench
from annotate.options import IMAGES_HELP, typed_command
from annotate.predict_command import predict
from builders.audit.cli import audit
from builders.errors import UserError
from builders.publish.cli import publish
from dataset_card.check_command import check
from dataset_card.compare.command import compare
from dataset_card.gallery.command import gallery
from train.cli import app as train_app

if TYPE_CHECKING:
    from annotate.runners import Stop

FULL_OR_LOCKED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
EXIT_MISTAKE, EXIT_INTERRUPTED, EXIT_TOO_MANY_REFUSED = 1, 130, 3

app = typer.Typer(
    name="vl-dermnet",
    help="Describe dermatology photographs with a vision-language model, build a dataset, train fusion classifiers.",
    epilog="Descriptions are written by a machine and reviewed by nobody. Nothing here is for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(train_app)
app.add_typer(bench, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=40, help="How many sample photographs.")] = 400,
    seeds: Annotated[int, typer.Option(min=1, help="Training runs per model.")] = 3,
    engine: Annotated[str, typer.Option(help="auto | vllm | transformers")] = "auto",
) -> None:
    """Run the whole path on sample photographs and the bundled tiny InternVL, on a CPU.

    Example: vl-dermnet demo --out demo
    """
    from annotate.demo import run_demo

    run_demo(out, n_images=images, n_seeds=seeds, engine=engine)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, which engine would run, and what to fix and how.

    Example: vl-dermnet doctor
    """
    from annotate.doctor import examine, render

    findings = examine()
    if as_json:
        _print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        render(findings)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be empty or absent.")],
    images: Annotated[int, typer.Option(min=1, help="How many photographs.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same photographs.")] = 0,
    broken: Annotated[bool, typer.Option(help="Add a few files that no decoder can read.")] = False,
) -> None:
    """Render photographs of skin with lesions: made by a program, in DermNet's layout, for trying things out.

    Example: vl-dermnet sample photos --images 400 --seed 0
    """
    from builders.sample import write_sample

    summary = write_sample(out, n_images=images, seed=seed, broken=broken)
    _print_json(dataclasses.asdict(summary))


@app.command()
def index(
    images: Annotated[str, typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="The index to write, a Parquet file.")],
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; one per core by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode every image to its last pixel and list it: identity, split, label, or why it was refused.

    Example: vl-dermnet index photos --out index.parquet
    """
    from annotate.progress import Progress
    from builders.dermnet import compare_with_dermnet, files_per_class
    from builders.index import check_index_file, index_images, summarise, write_index

    check_index_file(out)
    rows = index_images(images, workers, track=Progress().track)
    write_index(out, rows)
    summary = summarise(rows)
    if as_json:
        _print_json(dataclasses.asdict(summary))
    else:
        _print_summary(dataclasses.asdict(summary))
        typer.echo(f"index: {out}")
    for line in compare_with_dermnet(files_per_class(rows)):
        typer.echo(line, err=True)


@app.command()
def annotate(
    ctx: typer.Context,
    images: Annotated[str, typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="Run folder; what it already holds is not asked again.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, or tiny-internvl.")] = "OpenGVLab/InternVL3-8B-hf",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the checkpoint's own code; needs a commit.")] = False,
    engine: Annotated[str, typer.Option(help="auto | vllm | transformers | openai | scripted")] = "auto",
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Server for --engine openai; repeat it for several.")
    ] = None,
    engine_arg: Annotated[list[str] | None, typer.Option(help="key=value for the engine; repeat it.")] = None,
    prompt: Annotated[str, typer.Option(help="A bundled prompt's name, or a text file.")] = "doctor",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest description, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="For sampling at a temperature above 0.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto | bfloat16 | float16 | float32")] = "auto",
    max_dynamic_patch: Annotated[int | None, typer.Option(min=1, help="InternVL's tiles per image, at most.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Images the engine works on at once.")] = None,
    data_parallel: Annotated[int, typer.Option(min=1, help="Engines beside each other, one process each.")] = 1,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs per engine, for models that one cannot hold.")] = 1,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds an engine may hold an image before it is ended.")
    ] = 1800,
    runner: Annotated[str, typer.Option(help="local | ray")] = "local",
    shard: Annotated[str | None, typer.Option(help="I/N: describe only share I of N, from 0; for job arrays.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="Times to ask again for an answer with such a flag.")] = 2,
    retry_flag: Annotated[
        list[str] | None, typer.Option(help="Flag to ask again for; repeat it. Default: empty, refusal, repetition.")
    ] = None,
    schema: Annotated[str | None, typer.Option(help="derm: findings as JSON beside the description.")] = None,
    preflight: Annotated[bool, typer.Option(help="Stop where the first answers show that something is off.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show tokens, cost and settings; start nothing.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes per engine.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Describe only so many images, spread over classes.")] = None,
    index_file: Annotated[Path | None, typer.Option("--index", help="An index made before; saves a pass.")] = None,
    part_rows: Annotated[
        int, typer.Option(min=1, help="Answers per file in RUN/parts; a crash loses at most so many.")
    ] = 256,
    max_refused: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unusable images above which to exit 3.")
    ] = 0.02,
    as_json: AsJson = False,
) -> None:
    """Describe every image with a vision-language model; kill it and start it again as you like.

    Example: vl-dermnet annotate photos --out runs/tiny --model tiny-internvl
    """
    from annotate.config import DEFAULT_RETRY_FLAGS, AnnotateConfig, parse_engine_args
    from annotate.dry_run import render
    from annotate.job import plan_of, run
    from annotate.progress import Progress
    from annotate.runners import Stop

    config = AnnotateConfig(
        images=images,
        out=out,
        model=model,
        revision=revision,
        trust_remote_code=trust_remote_code,
        engine="openai" if endpoint and engine == "auto" else engine,
        engine_args={**parse_engine_args(engine_arg or []), **({"endpoint": endpoint} if endpoint else {})},
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
        max_dynamic_patch=max_dynamic_patch,
        max_in_flight=max_in_flight,
        runner=runner,
        data_parallel=data_parallel,
        tensor_parallel=tensor_parallel,
        timeout_s=timeout,
        retries=retries,
        retry_flags=tuple(retry_flag or DEFAULT_RETRY_FLAGS),
        schema_name=schema,
        shard=shard,
        preflight=preflight,
        n_workers=workers,
        limit=limit,
        index=index_file,
        part_rows=part_rows,
        max_refused=max_refused,
    )
    if dry_run:
        plan = plan_of(config)
        _print_json(dataclasses.asdict(plan)) if as_json else typer.echo("\n".join(render(plan)))
        return
    stop = Stop()
    _finish_on_signals(stop)
    try:
        summary = run(config, command=typed_command(), progress=Progress(), stop=stop)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what was finished is in {out}. To go on, type the same command again.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        _print_json(dataclasses.asdict(summary))
    else:
        _print_summary(dataclasses.asdict(summary))
        typer.echo(f"run: {out}")
    unusable = summary.n_refused + summary.n_failed
    if unusable > max_refused * summary.n_images:
        typer.echo(
            f"{unusable} of {summary.n_images} images were refused or failed, more than --max-refused {max_refused:g}"
            f" allows; each stands in {out}/parts with its reason",
            err=True,
        )
        raise typer.Exit(EXIT_TOO_MANY_REFUSED)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="Run folder of annotate, running or not.")],
    as_json: AsJson = False,
) -> None:
    """Show how far a run is, how fast, and what was refused or flagged; works while it runs.

    Example: vl-dermnet status runs/tiny
    """
    from annotate.status import status_of

    found = dataclasses.asdict(status_of(run))
    _print_json(found) if as_json else _print_summary(found)


@app.command()
def build(
    images: Annotated[Path, typer.Argument(help="The images that were described: the same folder or archive.")],
    run: Annotated[
        list[str],
        typer.Option(metavar="[NAME=]RUN", help="Run folder, and what to call its set; repeat it for several VLMs."),
    ],
    out: Annotated[Path, typer.Option(help="Dataset folder to write, or to replace.")],
    primary: Annotated[str | None, typer.Option(help="Set that load_dataset gives by default; else the first.")] = None,
    audit_folder: Annotated[
        Path | None, typer.Option("--audit", help="Folder of audit: splits by its near-copies, figures on the card.")
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Of the texts, as the Hub writes it: cc-by-4.0.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="A sentence for the card: what the photographs are, whose, on which terms.")
    ] = None,
    repo: Annotated[str | None, typer.Option(help="OWNER/NAME where it will be published, for the card.")] = None,
    contact: Annotated[str | None, typer.Option(help="Address for people who want a row removed.")] = None,
    review: Annotated[
        Path | None, typer.Option(help="CSV of marks from the gallery: columns review and review_note.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many photographs, spread over all folders.")] = None,
    with_images: Annotated[bool, typer.Option(help="Put the images' bytes in; only if you may pass them on.")] = False,
    allow_partial: Annotated[bool, typer.Option(help="Build from runs that are not finished, too.")] = False,
    seed: Annotated[int, typer.Option(help="Of the derived splits.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a Hugging Face dataset folder of one or several runs: shards, card, checksums.

    Example: vl-dermnet build photos --run runs/tiny --out dataset
    """
    from builders.build import BuildConfig, named_run
    from builders.build import build as build_dataset
    from dataset_card.card import write_card
    from dataset_card.choices import with_changes

    atexit.register(gc.freeze)  # spares two last searches for garbage, of memory that goes with the process
    choices = with_changes(out, license_id=license_id, source=source, repo_id=repo, contact=contact)
    runs = [named_run(each) for each in run]
    config = BuildConfig(
        images=images,
        runs=tuple(path for path, _ in runs),
        names={path: name for path, name in runs if name is not None},
        out=out,
        primary=primary,
        audit=audit_folder,
        review=review,
        limit=limit,
        with_images=with_images,
        allow_partial=allow_partial,
        seed=seed,
    )
    summary = build_dataset(config, finish=lambda folder: write_card(folder, choices))
    if as_json:
        _print_json(dataclasses.asdict(summary))
    else:
        facts = dataclasses.asdict(summary)
        for line in facts.pop("dermnet"):
            typer.echo(line, err=True)
        _print_summary(facts)
        typer.echo(f"dataset: {out}\nload it: datasets.load_dataset({str(out)!r})")


for command in (audit, check, gallery, compare, publish, predict):  # each parses for itself, beside what it calls
    app.command()(command)


def main() -> None:
    """Run the command line; a person's mistake is one block on stderr and exit code 1."""
    _collect_seldom()
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_MISTAKE)
    except PermissionError as error:
        typer.echo(f"error: {os.strerror(error.errno or errno.EACCES)}: {error.filename or 'a file'}", err=True)
        typer.echo("  fix: give yourself the right to it, or choose another place", err=True)
        sys.exit(EXIT_MISTAKE)
    except OSError as error:
        if error.errno not in FULL_OR_LOCKED:
            raise
        where = f" ({error.filename})" if error.filename else ""
        typer.echo(
            f"error: cannot write: {os.strerror(error.errno)}{where}; what was finished before is kept", err=True
        )
        typer.echo("  fix: make room or write elsewhere, then type the same command again", err=True)
        sys.exit(EXIT_MISTAKE)


def _collect_seldom() -> None:
    """Look for cycles of garbage after many more new objects than Python does.

    Imports and rows make objects by the hundred thousand, hardly any of them in cycles: looking for these took a tenth
    of `build`.
    """
    gc.set_threshold(100_000, 20, 20)


def _finish_on_signals(stop: "Stop") -> None:
    """Ctrl-C and SIGTERM, a scheduler's way to say it: finish what is in the engines; a second one ends it at once."""

    def ask_to_stop(number: int, frame: object) -> None:
        if stop.is_requested or not stop.is_streaming:
            raise KeyboardInterrupt
        stop.is_requested = True
        typer.echo("finishing what is in the engine, for some seconds; once more to stop at once", err=True)

    signal.signal(signal.SIGINT, ask_to_stop)
    signal.signal(signal.SIGTERM, ask_to_stop)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_summary(summary: dict[str, Any], prefix: str = "") -> None:
    """One `name: value` line per fact, nested ones as `outer.inner: value`; empty ones left out."""
    for name, value in summary.items():
        if isinstance(value, dict):
            _print_summary(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for entry in value:
                typer.echo(f"{prefix}{name}: {' = '.join(entry) if isinstance(entry, list) else entry}")
        elif value not in (None, ""):
            typer.echo(f"{prefix}{name}: {value}")
