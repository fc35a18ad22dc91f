"""The commands train, train-features and features: parse, call one function, print."""

from pathlib import Path
from typing import Annotated, Any

import typer

from train.results_command import report, table

# What a setting of TrainConfig is called on the command line, where that is not its own name.
PARAMETERS = {
    "models": "model",
    "n_seeds": "seeds",
    "is_frozen": "frozen",
    "is_augmented": "augment",
    "is_bf16": "bf16",
    "is_refit": "refit",
    "hidden_dims": "hidden_dim",
    "warmup_fraction": "warmup",
    "n_jobs": "jobs",
    "caches_frozen_blocks": "cache_frozen_blocks",
}

app = typer.Typer(no_args_is_help=True)


@app.command()
def train(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="A dataset folder, or a Hub repository's id.")],
    out: Annotated[Path, typer.Option(help="The experiment folder; finished runs in it are skipped.")],
    recipe: Annotated[
        str | None, typer.Option(help="paper: the reproduced paper's six rows; other options given override it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, assumptions and the number of runs; start nothing.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder or archive with the photographs, where the dataset does not hold them.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable. all: the paper's six rows, text_only, image_only, concat, gating, dual_film and "
            "attention_pooling. Beyond it: gmu, late_logits, low_rank_tensor, learned_query_pooling, cross_attention, "
            "bottleneck_tokens. every: all twelve. By default all."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each model with the seeds 0 to N - 1.")] = 5,
    protocol: Annotated[
        str, typer.Option(help="official (the source's split), clean (no copies across splits), or both.")
    ] = "both",
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Do not train the backbones: compute their features once, train heads.")
    ] = False,
    image_backbone: Annotated[
        str | None,
        typer.Option(help="AutoModel folder, Hub id or tiny-internvl; of a multimodal one, its vision part."),
    ] = None,
    image_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the image backbone.")] = None,
    text_backbone: Annotated[
        str | None, typer.Option(help="AutoModel folder, Hub id or tiny-internvl; of a multimodal one, its text part.")
    ] = None,
    text_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the text backbone.")] = None,
    set_name: Annotated[str | None, typer.Option("--set", help="Description set; the primary one by default.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the dataset.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default 60 with --frozen, else 10.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per step, in how many parts or processes it may be computed.")
    ] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the fusion.")] = 1e-3,
    head_epochs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Before the others: train the heads alone for N epochs, on backbones that run once; the heads then go "
            "on at the backbones' learning rates.",
        ),
    ] = 0,
    image_lr: Annotated[float, typer.Option(help="Peak learning rate of the image backbone.")] = 5e-5,
    text_lr: Annotated[float, typer.Option(help="Peak learning rate of the text backbone.")] = 2e-5,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="AdamW's, of matrices only: no bias, norm or scale decays.")
    ] = 0.05,
    warmup: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Share of all steps in which learning rates rise to their peak; 0 for none."
        ),
    ] = 0.1,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.99, help="0 for none.")] = 0.0,
    max_text_tokens: Annotated[int, typer.Option(min=1, help="Longer descriptions are cut, and counted.")] = 256,
    hidden_dim: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Width of a hidden layer in the head; repeat for more layers. By default it is linear."
        ),
    ] = None,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Behind each hidden layer.")] = 0.0,
    augment: Annotated[bool, typer.Option(help="Flip and shift images when fine-tuning.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    jobs: Annotated[
        int, typer.Option(min=1, help="With --frozen: train N heads at once, each in a process; N cores suit N heads.")
    ] = 1,
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision (autocast).")] = False,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Compute a batch in N parts to save memory; doubled by itself where it must be.")
    ] = 1,
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds; also after each epoch of fine-tuning. A killed run goes on there.")
    ] = 300.0,
    ema: Annotated[float, typer.Option(min=0, max=0.9999999, help="Decay of averaged weights; 0 for none.")] = 0.0,
    imbalance: Annotated[
        str,
        typer.Option(help="none, class_weights, effective_number, logit_adjustment or balanced_sampler."),
    ] = "none",
    modality_dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Share of training rows that lose their text or their image.")
    ] = 0.0,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after N epochs without a better macro-F1 on validation.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train again on train and validation together, to the end, and test that.")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile the backbones: minutes to start, faster steps.")
    ] = False,
    image_layers: Annotated[
        int | None, typer.Option(min=0, help="Train only the last N blocks of the image backbone; 0 for none.")
    ] = None,
    text_layers: Annotated[int | None, typer.Option(min=0, help="The same of the text backbone.")] = None,
    cache_frozen_blocks: Annotated[
        bool,
        typer.Option(
            "--cache-frozen-blocks",
            help="With --image-layers: compute what enters these blocks once and keep it on disk. Images are then "
            "mirrored (--no-augment: not even that), and not shifted.",
        ),
    ] = False,
    lora: Annotated[
        int | None,
        typer.Option(
            min=1, help="Train adapters of this rank on the blocks, not the blocks; --image-lr 5e-4 suits them better."
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable. Rows that a gain has to be held against: shuffled_text, shuffled_text_within_class, "
            "empty_text, constant_text, random_text, masked_text (class names masked), second_image, "
            "matched_image_only, emap (of the best fusion). all: every one; second_image only where its encoder is "
            "named."
        ),
    ] = None,
    control_model: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable. What controls are of; by default attention_pooling, or the first fusion."),
    ] = None,
    second_image_backbone: Annotated[
        str | None, typer.Option(help="For the control second_image: AutoModel folder, Hub id or tiny-internvl.")
    ] = None,
    second_image_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Train fusion classifiers on DATASET: models × protocols × seeds, each tested once.

    Writes predictions, models, results.json and report.html to OUT and prints the table. An interrupted experiment goes
    on where it stopped when the same command is given again.

    Several GPUs: torchrun --nproc-per-node 2 -m annotate train DATASET --out EXP (each batch is shared out).

    Example: vl-dermnet train dataset --out exp --model all --seeds 5 --frozen
    """
    from builders.errors import choose
    from train.config import checked_config
    from train.recipes import RECIPES

    given = {
        "image_backbone": image_backbone,
        "text_backbone": text_backbone,
        "control_models": tuple(control_model) if control_model else None,
    }
    options: dict[str, Any] = {
        "dataset": dataset,
        "out": out,
        "images": images,
        "models": tuple(model or ()),
        "n_seeds": seeds,
        "protocol": protocol,
        "is_frozen": frozen,
        "image_revision": image_revision,
        "text_revision": text_revision,
        "set_name": set_name,
        "revision": revision,
        "epochs": epochs,
        "head_epochs": head_epochs,
        "batch_size": batch_size,
        "lr": lr,
        "image_lr": image_lr,
        "text_lr": text_lr,
        "weight_decay": weight_decay,
        "warmup_fraction": warmup,
        "label_smoothing": label_smoothing,
        "max_text_tokens": max_text_tokens,
        "hidden_dims": tuple(hidden_dim or ()),
        "dropout": dropout,
        "is_augmented": augment,
        "device": device,
        "n_jobs": jobs,
        "is_bf16": bf16,
        "accumulate": accumulate,
        "checkpoint_every_s": checkpoint_every,
        "ema": ema,
        "imbalance": imbalance,
        "modality_dropout": modality_dropout,
        "patience": patience,
        "is_compiled": compile_,
        "is_refit": refit,
        "image_layers": image_layers,
        "text_layers": text_layers,
        "caches_frozen_blocks": cache_frozen_blocks,
        "lora": lora,
        "controls": tuple(control or ()),
        "second_image_backbone": second_image_backbone,
        "second_image_revision": second_image_revision,
        **{name: value for name, value in given.items() if value is not None},
    }
    if recipe is not None:
        choose("recipe", recipe, list(RECIPES))
        settings = RECIPES[recipe].settings
        overridden = [name for name in settings if _is_given(ctx, PARAMETERS.get(name, name))]
        options |= {name: value for name, value in settings.items() if name not in overridden}
        options |= {"recipe": recipe, "recipe_overrides": tuple(overridden)}
    config = checked_config(options, "train")
    if dry_run:
        from train.plan import tell_plan  # heavy: kept out of --help

        tell_plan(config, json)
        return
    from train.experiment import run  # heavy: kept out of --help

    experiment = run(config)
    if experiment.is_first:
        table(experiment.folder, json=json)


def _is_given(ctx: typer.Context, parameter: str) -> bool:
    """Whether a parameter was typed, and did not come from its default."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


@app.command(name="train-features")
def train_features(
    listed: Annotated[
        Path,
        typer.Argument(metavar="LIST", help="CSV or Parquet: path, split, label, and group (optional)."),
    ],
    features: Annotated[list[Path], typer.Argument(help="Feature files of any encoder, .npz or .parquet.")],
    out: Annotated[Path, typer.Option(help="The experiment folder; finished runs in it are skipped.")],
    first: Annotated[
        list[str] | None, typer.Option(help="Array for what the models call the image; repeat to put several together.")
    ] = None,
    second: Annotated[
        list[str] | None, typer.Option(help="Array for what they call the text; repeat to put several together.")
    ] = None,
    first_of: Annotated[
        str | None,
        typer.Option(help="What --first is of, in words, such as DINOv2-S: a row of the table is called so."),
    ] = None,
    second_of: Annotated[
        str | None, typer.Option(help="The same of --second, such as 'MiniLM of age, sex and site'.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="As for train; by default the paper's six rows.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each model with the seeds 0 to N - 1.")] = 5,
    protocol: Annotated[str, typer.Option(help="official, clean (no group in two splits), or both.")] = "both",
    hidden_dim: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Width of a hidden layer in the head; repeat for more layers. By default it is linear."
        ),
    ] = None,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Behind each hidden layer.")] = 0.0,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default 60.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0, help="As for train.")] = 0.05,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.99, help="0 for none.")] = 0.0,
    refit: Annotated[bool, typer.Option("--refit", help="As for train.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Train N heads at once, each in a process.")] = 1,
    control: Annotated[
        list[str] | None, typer.Option(help="Repeatable. As for train, but for those that need an encoder.")
    ] = None,
    control_model: Annotated[
        list[str] | None, typer.Option(help="Repeatable. What controls are of; by default concat.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Train heads on features from files, without photographs: the same matrix, predictions and table as train.

    Example: vl-dermnet train-features index.csv features.npz --first clip --second dinov2 --hidden-dim 512 --out exp
    """
    from builders.errors import UserError
    from train.config import checked_config
    from train.experiment import run  # heavy: kept out of --help

    if not first and not second:
        raise UserError("no array of features was named", "--first ARRAY --second ARRAY")
    options: dict[str, Any] = {
        "dataset": str(listed),
        "features": tuple(features),
        "image_features": tuple(first or ()),
        "text_features": tuple(second or ()),
        "image_features_of": first_of,
        "text_features_of": second_of,
        "out": out,
        "models": tuple(model or ()),
        "n_seeds": seeds,
        "protocol": protocol,
        "is_frozen": True,
        "hidden_dims": tuple(hidden_dim or ()),
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "is_refit": refit,
        "n_jobs": jobs,
        "controls": tuple(control or ()),
        "control_models": tuple(control_model or ()),
        "device": "cpu",
    }
    experiment = run(checked_config(options, "train-features"))
    table(experiment.folder, json=json)


@app.command()
def features(
    images: Annotated[str, typer.Argument(help="Folder, archive or Hub address, as for annotate.")],
    backbone: Annotated[str, typer.Option(help="AutoModel folder, Hub id or tiny-internvl.")],
    out: Annotated[Path, typer.Option(help="FILE.npz or FILE.parquet; an interrupted call goes on.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the backbone.")] = None,
    layers: Annotated[int, typer.Option(min=1, help="Also the pooled vectors of the last N layers.")] = 1,
    patch_mean: Annotated[bool, typer.Option("--patch-mean", help="Also the mean over the patches.")] = False,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH: the whole photograph at this size, not the processor's crop.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision.")] = False,
) -> None:
    """Write an encoder's features of photographs, for audit --features and train-features.

    Example: vl-dermnet features photographs --backbone facebook/dinov2-small --out dinov2.npz
    """
    from builders.errors import UserError
    from train.extract import Extraction, write_features  # heavy: kept out of --help

    sides = (size or "").split("x")
    if size is not None and (len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides)):
        raise UserError(f"--size is '{size}', not HEIGHTxWIDTH", "--size 168x224")
    size_px = None if size is None else (int(sides[0]), int(sides[1]))
    n_images, _ = write_features(
        images, out, Extraction(backbone, revision, layers, patch_mean, size_px, device=device, is_bf16=bf16)
    )
    typer.echo(f"{out}: features of {n_images:,} images")


for command in (table, report):  # each parses for itself, beside what it calls
    app.command()(command)
