"""`vl-dermnet bench …`: what the pages under results/ claim, measured again on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from annotate.options import IMAGES_HELP, typed_command
from builders.errors import UserError

bench = typer.Typer(help="Measure, on this machine, what the results pages claim.", no_args_is_help=True)


@bench.command("annotate")
def bench_annotate(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md; what they hold is kept.")],
    images: Annotated[
        str | None, typer.Argument(help=f"{IMAGES_HELP} With --gpu made where left out.", show_default=False)
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="The matrix for a GPU: InternVL3's shapes, tiles, ways, single settings.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Hub id, folder, tiny-internvl, random-70m, internvl3-1b, -2b, -8b; --gpu takes several."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto | bfloat16 | float16 | float32, the default without --gpu.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Output tokens per image, exactly. Default: 64; with --gpu 200.")
    ] = None,
    way: Annotated[list[str] | None, typer.Option(help="Measure only this way; repeat it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images. Default with --gpu: 2000.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Without --gpu: each way so often, in turns.")] = 3,
    settings: Annotated[bool, typer.Option(help="With --gpu: single settings against the default.")] = True,
    engine_arg: Annotated[list[str] | None, typer.Option(help="key=value for vLLM; repeat it.")] = None,
) -> None:
    """Compare annotate with other ways to ask the same vLLM engine: images per second and their ratio.

    Example: vl-dermnet bench annotate photos --out results/annotate-cpu

    Example: vl-dermnet bench annotate --gpu --out results/annotate-gpu
    """
    from annotate.config import parse_engine_args

    engine_args = tuple(parse_engine_args(engine_arg or []).items())
    if gpu:
        from annotate.bench.gpu import DEFAULT_WAYS, MODELS, GpuBench, bench_gpu
        from annotate.bench.gpu_report import as_markdown as gpu_page
        from annotate.bench.measured import WAYS

        matrix = GpuBench(
            out=out,
            images=images,
            models=tuple(model or MODELS),
            dtype=dtype or "bfloat16",
            n_tokens=tokens or 200,
            n_images=limit or 2000,
            ways=tuple(way or DEFAULT_WAYS),
            has_settings=settings,
            engine_args=engine_args,
        )
        result = bench_gpu(matrix, typed_command(), say=lambda message: typer.echo(message, err=True))
        typer.echo(gpu_page(result, WAYS), nl=False)
        return

    from annotate.bench import WAYS, BenchConfig, as_markdown
    from annotate.bench import bench_annotate as measure

    if images is None:
        raise UserError("no IMAGES are named; only --gpu makes its own", "vl-dermnet bench annotate photos --out OUT")
    if model and len(model) > 1:
        raise UserError(f"--model is given {len(model)} times; only --gpu takes several", f"--model {model[0]}")
    config = BenchConfig(
        images=images,
        out=out,
        model=model[0] if model else "tiny-internvl",
        dtype=dtype or "float32",
        n_tokens=tokens or 64,
        ways=tuple(way or WAYS),
        limit=limit,
        n_rounds=rounds,
        engine_args=engine_args,
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
    gpu: Annotated[
        bool, typer.Option("--gpu", help="The matrix for a GPU: batches, torch.compile, an epoch, features.")
    ] = False,
    shape: Annotated[
        str | None, typer.Option(help="light, small, or base: ViT-B/16 and BERT-base, the default on a GPU.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Images per step, 32; --gpu takes several: 32, 64, 128 and 256.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of each loop in a round.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="In which the loops take turns.")] = 6,
    accuracy_seeds: Annotated[int, typer.Option(min=0, help="Without --gpu: trainings to compare accuracy on.")] = 3,
    accuracy_epochs: Annotated[int, typer.Option(min=1, help="Of each of them.")] = 8,
    rows: Annotated[
        int | None,
        typer.Option(min=20, help="With --gpu: images of the epoch and the features. Default: DermNet's."),
    ] = None,
    feature_backbone: Annotated[
        str | None, typer.Option(help="With --gpu: folder or Hub id. Default: DINOv2-S's shape with made-up weights.")
    ] = None,
) -> None:
    """Compare the training loop with a bare loop and the transformers Trainer, and attention pooling with one modality.

    Example: vl-dermnet bench train --out results/train

    Example: vl-dermnet bench train --gpu --out results/train-gpu
    """
    from annotate.provenance import machine, utc_now

    if gpu:
        from annotate.bench.gpus import gpu_names
        from train.bench.gpu import BATCHES, N_ALL, N_TRAIN, GpuBench, bench_gpu
        from train.bench.gpu_report import as_markdown as gpu_page

        matrix = GpuBench(
            out=out,
            shape=shape or "base",
            batches=tuple(batch_size or BATCHES),
            n_steps=steps,
            n_rounds=rounds,
            n_train=rows or N_TRAIN,
            n_features=rows or N_ALL,
            feature_backbone=feature_backbone,
        )
        host = {**machine(), "gpus": gpu_names()}
        said = bench_gpu(matrix, typed_command(), host, utc_now(), say=lambda message: typer.echo(message, err=True))
        typer.echo(gpu_page(said), nl=False)
        return

    from train.bench.job import BenchConfig, default_shape
    from train.bench.job import bench_train as measure
    from train.bench.report import as_markdown

    if batch_size and len(batch_size) > 1:
        raise UserError(f"--batch-size is given {len(batch_size)} times; only --gpu takes several", "--batch-size 32")
    size = batch_size[0] if batch_size else 32
    config = BenchConfig(out, shape or default_shape(), size, steps, rounds, accuracy_seeds, accuracy_epochs)
    typer.echo(as_markdown(measure(config, typed_command(), machine(), utc_now())), nl=False)


@bench.command("frozen")
def bench_frozen(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md; what they hold is kept.")],
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each row.")] = 5,
    rows: Annotated[
        int | None, typer.Option(min=50, help="Of train; a fourth as many of test. Default: DermNet's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: that of train --frozen.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="As of train.")] = 32,
    lr: Annotated[float, typer.Option(help="As of train.")] = 1e-3,
    jobs: Annotated[int, typer.Option(min=1, help="Fits at once, as of train --jobs.")] = 1,
) -> None:
    """Measure how long train --frozen takes for the paper's rows on features of DermNet's number and size.

    Example: vl-dermnet bench frozen --out results/train-frozen --jobs 2
    """
    from annotate.provenance import machine, utc_now
    from train.bench.frozen import FrozenBench, as_markdown
    from train.bench.frozen import bench_frozen as measure

    size = {} if rows is None else {"n_train": rows, "n_test": rows // 4}
    config = FrozenBench(out, n_seeds=seeds, epochs=epochs, batch_size=batch_size, lr=lr, n_jobs=jobs, **size)
    result = measure(config, typed_command(), machine(), utc_now(), say=lambda message: typer.echo(message, err=True))
    typer.echo(as_markdown(result), nl=False)


@bench.command("build")
def bench_build(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    images: Annotated[int, typer.Option(min=10, help="Photographs of build and index; audit takes up to 4 x.")] = 5000,
) -> None:
    """Compare build with datasets' imagefolder, index with a Pillow loop, a second set with one, audits of three sizes.

    Example: vl-dermnet bench build --out results/build
    """
    from annotate.provenance import machine, utc_now
    from builders.bench.job import BenchConfig
    from builders.bench.job import bench_build as measure
    from builders.bench.report import as_markdown

    config = BenchConfig(out, (sys.executable, "-m", "annotate"), images)
    result = measure(config, typed_command(), machine(), utc_now(), say=lambda message: typer.echo(message, err=True))
    typer.echo(as_markdown(result), nl=False)
