"""Heads on other people's DermNet features: `python -m train.studies.dermnet_heads DATA EXPERIMENTS --out OUT`.

DATA holds index.csv and features_pca50.npz: 50 principal components each of CLIP ViT-B/32, DINOv2 ViT-B/14 and
ResNet-50 for the 18,302 byte-unique files of Kaggle's DermNet, from the repository DermNet-Representation-Analysis at
185aa8b. Two *image* encoders stand where image and text would: nothing here is about descriptions. Test are the 3,409
byte-unique files of the official split, which still holds near-copies of train.

Settings were chosen on validation rows taken out of train, for three encoders and one or two seeds: one to three hidden
layers of 256 to 4,096, dropout 0 to 0.7, learning rate, length, noise, mixing and weight decay. Test accuracies of
single seeds were printed beside some of these tries, so they were in sight.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from train.config import TrainConfig
from train.experiment import run
from train.studies import run_study, write_results

FIRST, ALL = ("clip_vit_b32",), ("clip_vit_b32", "resnet50")
ENCODERS = {"clip_vit_b32": "CLIP ViT-B/32", "resnet50": "ResNet-50"}
TWO = ("image_only", "text_only", "concat", "gating", "dual_film", "late_logits")
SAID = [
    "Image only is CLIP alone, text only is DINOv2 alone; no text is involved, so what the tables say of text is to be",
    "read of the second encoder. Features are 50 principal components of each, from the repository",
    "DermNet-Representation-Analysis at 185aa8b; tested are the 3,409 byte-unique files of the official test split,",
    "which holds near-copies of train. That repository's own figures on them: MLP heads (5 seeds; accuracy in %) CLIP",
    "55.6, DINOv2 59.1, concat 64.3, gating 65.1, dual FiLM 65.6, late logits 63.4; an RBF-SVM on all three encoders",
    "66.4 / 0.638.",
    "Settings were chosen on validation rows; test accuracies of single seeds were printed beside some of the tries,",
    "so they were in sight. The second encoder's gain says nothing of text, and no control stands beside it.",
    "A tenth of train is held out to choose the epoch and the temperature; tested is a model that was then trained on",
    "all of train (--refit), as those others were.",
]


def heads(data: Path, out: Path, first: tuple[str, ...], models: tuple[str, ...], **changes: Any) -> TrainConfig:
    """Heads on the encoders `first` and DINOv2, as in the study but for `changes`."""
    settings: dict[str, Any] = {
        "dataset": str(data / "index.csv"),
        "features": (data / "features_pca50.npz",),
        "image_features": first,
        "text_features": ("dinov2_vit_b14",),
        "image_features_of": " and ".join(ENCODERS[each] for each in first),
        "text_features_of": "DINOv2 ViT-B/14",
        "out": out,
        "models": models,
        "protocol": "official",
        "is_frozen": True,
        "hidden_dims": (1024, 1024),
        "dropout": 0.3,
        "label_smoothing": 0.1,
        "epochs": 30,
        "batch_size": 512,
        "lr": 4e-3,
        "is_refit": True,
        "device": "cpu",
    }
    return TrainConfig.model_validate(settings | changes)


def main(
    data: Annotated[Path, typer.Argument(help="Folder with index.csv and features_pca50.npz.")],
    experiments: Annotated[Path, typer.Argument(help="Where the experiments go; finished runs are kept.")],
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    jobs: Annotated[int, typer.Option(min=1, help="Heads trained at once, as of train --jobs.")] = 1,
) -> None:
    """Train the heads, five seeds each, and write their tables."""
    two = run(heads(data, experiments / "two", FIRST, TWO, n_jobs=jobs)).folder
    three = run(heads(data, experiments / "three", ALL, ("concat",), n_jobs=jobs)).folder
    write_results(out, "Heads on DermNet features", SAID, {"Two encoders": two, "Three encoders": three})


if __name__ == "__main__":
    run_study(main)
