"""HAM10000 on DermaMNIST's split, encoders trained too, or their last blocks: one command, for one GPU.

`python -m train.studies.ham10000_fine_tuned DATA WORK --out OUT`, where DATA holds images_200x150.zip and metadata.csv,
and WORK gets the dataset folder and the experiment; the same command goes on where it was stopped. Texts, groups,
models and heads are those of `train.studies.ham10000`, whose encoders are frozen (`--linear`: heads without the hidden
layer, the dropout and the label smoothing of these); learning rates are those of `vl-dermnet train` where `--image-lr`
says nothing else. A photograph is resized and cropped as the image encoder's own processor says. On a laptop,
`--image-layers 1 --text-layers 1 --cache-frozen-blocks --image-lr 2e-4` trains last blocks on what enters them;
`--no-bf16` where the processor has no instructions for bfloat16.
"""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from builders.errors import UserError, choose
from builders.sources.layout import SPLITS, split_and_label
from train.config import PROTOCOLS, TrainConfig
from train.experiment import run
from train.studies import run_study, write_results
from train.studies.ham10000 import COLUMNS, HEADS, METADATA, MODELS, sentence
from train.studies.sentence_dataset import write_dataset
from train.studies.sentences import read_rows
from train.studies.unseen_groups import on_unseen_groups

IMAGES = "images_200x150.zip"
IMAGE_LR: float = TrainConfig.model_fields["image_lr"].default


def read_metadata(data: Path) -> list[dict[str, str]]:
    """The rows of DATA/metadata.csv. Raises `UserError` where files are missing, or paths tell another split or label.

    What is trained on is told by the paths in the zip: `train/nv/….jpg`.
    """
    if not (data / IMAGES).is_file():
        raise UserError(f"{data} holds no {IMAGES}", f"give a folder with {IMAGES} and {METADATA} in it")
    rows = read_rows(data / METADATA, COLUMNS)
    for row in rows:
        if split_and_label(row["file_name"]) != (SPLITS.get(row["split"]), row["dx"]):
            raise UserError(
                f"{data / METADATA} says split {row['split']} and dx {row['dx']} of {row['file_name']}",
                "make path and columns agree: SPLIT/DX/FILE",
            )
    return rows


def dataset_of(data: Path, work: Path) -> Path:
    """The dataset folder below WORK: each photograph with its sentence, and lesions as groups."""
    rows = read_metadata(data)
    texts = {row["file_name"]: sentence(row) for row in rows}
    lesions = {row["file_name"]: row["lesion_id"] for row in rows}
    return write_dataset(data / IMAGES, texts, lesions, "HAM10000's metadata.csv", work)


def said_of(config: TrainConfig) -> list[str]:
    """What the page says above its tables."""
    said = [
        "Text is a sentence of age, sex and site, written from the metadata and not by a model; `dx_type`, which tells",
        "the label, is not read. The epoch is chosen on validation.",
        "Heads are those of the study with frozen encoders, where a width and dropout were tried in sight of the test."
        if config.hidden_dims
        else "Heads are linear.",
    ]
    for kind, backbone, n_layers, lr in (
        ("Image", config.image_backbone, config.image_layers, config.image_lr),
        ("Text", config.text_backbone, config.text_layers, config.text_lr),
    ):
        part = "trained as a whole" if n_layers is None else f"blocks trained, from the last: {n_layers}"
        trained = "frozen" if n_layers == 0 else f"{part}, at a learning rate of {lr:g}"
        said.append(f"{kind} encoder: {Path(backbone).name}, {trained}.")
    return [
        *said,
        *_said_of_heads(config),
        f"{config.n_epochs} epochs in batches of {config.batch_size}, {'bfloat16' if config.is_bf16 else 'float32'}.",
        *_said_of_augmentation(config),
        "The official split has test images of lesions that are in train too. The clean protocol tests on those whose",
        "lesion is in neither train nor validation; its mix of classes is another, so accuracies must not be compared",
        "across the two protocols.",
        *([f"Only the {config.protocol} protocol was asked for here."] if config.protocol != "both" else []),
    ]


def _said_of_heads(config: TrainConfig) -> list[str]:
    if not config.head_epochs:
        return []
    return [
        f"First, {config.head_epochs} epochs of the heads alone, on frozen encoders and images as they are; then",
        "they learn at the rate of the encoders (LP-FT, https://arxiv.org/abs/2202.10054).",
    ]


def _said_of_augmentation(config: TrainConfig) -> list[str]:
    if not config.is_augmented:
        return ["Images are not augmented."]
    if config.caches_frozen_blocks:
        return [
            "Train images are mirrored at random and not augmented otherwise: what enters the first trained block of",
            "the image encoder was computed once, of each photograph and its mirror image.",
        ]
    return ["Train images are flipped and shifted at random."]


def main(
    data: Annotated[Path, typer.Argument(help=f"Folder with {IMAGES} and {METADATA}.")],
    work: Annotated[Path, typer.Argument(help="Where dataset and experiment go; finished runs are kept.")],
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    image_backbone: Annotated[str, typer.Option(help="AutoModel folder or Hub id.")] = "facebook/dinov2-small",
    text_backbone: Annotated[
        str, typer.Option(help="AutoModel folder or Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    image_layers: Annotated[
        int | None, typer.Option(min=0, help="Train its last N blocks only, 0 for none; by default all of it.")
    ] = None,
    text_layers: Annotated[int | None, typer.Option(min=0, help="The same of the text encoder.")] = None,
    cache_frozen_blocks: Annotated[
        bool,
        typer.Option(
            "--cache-frozen-blocks",
            help="With --image-layers: compute what enters these blocks once and keep it in WORK. Images are then "
            "mirrored (--no-augment: not even that), and not shifted.",
        ),
    ] = False,
    image_lr: Annotated[float, typer.Option(min=1e-7, help="Learning rate of the image encoder.")] = IMAGE_LR,
    augment: Annotated[bool, typer.Option(help="Flip and shift train images.")] = True,
    model: Annotated[list[str] | None, typer.Option(help=f"Repeatable; by default {', '.join(MODELS)}.")] = None,
    linear: Annotated[bool, typer.Option("--linear", help="Heads without hidden layer, dropout, smoothing.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Train each model with the seeds 0 to N - 1.")] = 5,
    protocol: Annotated[str, typer.Option(help="official, clean (no lesion in two splits), or both.")] = "both",
    epochs: Annotated[int, typer.Option(min=1, help="How often the training rows are seen.")] = 20,
    head_epochs: Annotated[int, typer.Option(min=0, help="Before them, the heads alone: so many epochs.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Computed in parts where memory does not do.")] = 64,
    bf16: Annotated[bool, typer.Option(help="Mixed precision; --no-bf16 for a CPU.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
) -> None:
    """Train fusion on HAM10000's photographs, encoders included, and write the table.

    Example: python -m train.studies.ham10000_fine_tuned ham10000 work --out results/ham10000-fine-tuned

    Only the last blocks: --image-layers 2 --text-layers 2, with another WORK; on a laptop, --image-layers 1
    --text-layers 1 --cache-frozen-blocks --image-lr 2e-4 --device cpu --seeds 1, and --no-bf16 where the processor has
    no instructions for it. A larger encoder: --image-backbone google/vit-base-patch16-224-in21k.
    """
    choose("protocol", protocol, list(PROTOCOLS))
    config = TrainConfig(
        dataset=str(dataset_of(data, work)),
        images=data / IMAGES,
        out=work / "experiment",
        models=tuple(model or MODELS),
        n_seeds=seeds,
        protocol=cast(Any, protocol),
        image_backbone=image_backbone,
        text_backbone=text_backbone,
        image_layers=image_layers,
        text_layers=text_layers,
        caches_frozen_blocks=cache_frozen_blocks,
        is_augmented=augment,
        max_text_tokens=64,
        **({} if linear else HEADS),
        image_lr=image_lr,
        epochs=epochs,
        head_epochs=head_epochs,
        batch_size=batch_size,
        is_bf16=bf16,
        device=device,
    )
    whole = image_layers is None and text_layers is None
    title = f"HAM10000 on DermaMNIST's split, encoders {'fine-tuned' if whole else 'partly unfrozen'}"
    folder = run(config).folder
    unseen = on_unseen_groups(config, "lesion") if config.protocol == "official" else []
    write_results(out, title, [*said_of(config), *unseen], {"Whole models": folder})


if __name__ == "__main__":
    run_study(main)
