"""`vl-dermnet bench …`: what the pages under results/ claim, measured again on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from annotate.options import IMAGES_HELP, typed_command

bench = typer.Typer(help="Measure, on this machine, what the results pages claim.", no_args_is_help=True)


@bench.command("annotate")
def bench_annotate(
    images: Annotated[str, typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md; what they hold is kept.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, tiny-internvl, or random-70m.")] = "tiny-internvl",
    dtype: Annotated[str, typer.Option(help="auto | bfloat16 | float16 | float32")] = "float32",
    tokens: Annotated[int, typer.Option(min=1, help="Output tokens per image, exactly.")] = 64,
    way: Annotated[list[str] | None, typer.Option(help="Measure only this way; repeat it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measure each way so often, in turns.")] = 3,
    engine_arg: Annotated[list[str] | None, typer.Option(help="key=value for vLLM; repeat it.")] = None,
) -> None:
    """Compare annotate with other ways to ask the same vLLM engine: images per second and their ratio.

    Example: vl-dermnet bench annotate photos --out results/annotate-cpu
    """
    from annotate.bench import WAYS, BenchConfig, as_markdown
    from annotate.bench import bench_annotate as measure
    from annotate.config import parse_engine_args

    config = BenchConfig(
        images=images,
        out=out,
        model=model,
        dtype=dtype,
        n_tokens=tokens,
        ways=tuple(way or WAYS),
        limit=limit,
        n_rounds=rounds,
        engine_args=tuple(parse_engine_args(engine_arg or []).items()),
    )
    typer.echo(as_markdown(measure(config, typed_command()), WAYS), nl=False)


@bench.command("scale")
def bench_scale(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    images: Annotated[list[int] | None, typer.Option(min=1, help="A size; repeat it. Default: 1000 and 20000.")] = None,
) -> None:
    """Measure what annotate itself costs: memory, resuming, the first part, with an engine that costs nothing.

    Example: vl-dermnet bench scale --out results/annotate-scale
    """
    from annotate.bench.scale import SIZES, as_markdown
    from annotate.bench.scale import bench_scale as measure

    typer.echo(as_markdown(measure(out, tuple(images or SIZES), typed_command())), nl=False)


@bench.command("train")
def bench_train(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    shape: Annotated[
        str | None, typer.Option(help="light, small, or base: ViT-B/16 and BERT-base, the default on a GPU.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Of each loop in a round.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="In which the loops take turns.")] = 6,
    accuracy_seeds: Annotated[int, typer.Option(min=0, help="Trainings to compare test accuracy on.")] = 3,
    accuracy_epochs: Annotated[int, typer.Option(min=1, help="Of each of them.")] = 8,
) -> None:
    """Compare the training loop with a bare loop and the transformers Trainer, and attention pooling with one modality.

    Example: vl-dermnet bench train --out results/train
    """
    from annotate.provenance import machine, utc_now
    from train.bench.job import BenchConfig, default_shape
    from train.bench.job import bench_train as measure
    from train.bench.report import as_markdown

    config = BenchConfig(out, shape or default_shape(), batch_size, steps, rounds, accuracy_seeds, accuracy_epochs)
    typer.echo(as_markdown(measure(config, typed_command(), machine(), utc_now())), nl=False)


@bench.command("build")
def bench_build(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    images: Annotated[int, typer.Option(min=10, help="Photographs of build and index; audit takes up to 4 x.")] = 5000,
) -> None:
    """Compare build with datasets' imagefolder, index with a Pillow loop, and audits of three sizes with each other.

    Example: vl-dermnet bench build --out results/build
    """
    from annotate.provenance import machine, utc_now
    from builders.bench.job import BenchConfig
    from builders.bench.job import bench_build as measure
    from builders.bench.report import as_markdown

    config = BenchConfig(out, (sys.executable, "-m", "annotate"), images)
    result = measure(config, typed_command(), machine(), utc_now(), say=lambda message: typer.echo(message, err=True))
    typer.echo(as_markdown(result), nl=False)
