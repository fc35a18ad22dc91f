"""307 photographs of PAD-UFES-20, frozen encoders, the honest half of its metadata as text.

`python -m train.studies.pad_ufes_20 DATA FEATURES.npz WORK --text-backbone ID --out OUT`, where DATA holds train/ and
test/ with a metadata.csv each, and FEATURES is what `vl-dermnet features … --layers 4 --patch-mean` made of DATA. The
text is `clinical_text_min`: age, region and six symptoms; what tells the label by its absence is not read. Groups are
patients. With 60 test photographs every interval is wide.
"""

from pathlib import Path
from typing import Annotated

import typer

from train.config import TrainConfig
from train.experiment import run
from train.studies import run_study, write_results
from train.studies.sentences import read_rows, write_list, write_text_features

MODELS = ("image_only", "text_only", "concat", "dual_film", "late_logits")
COLUMNS = ("file_name", "label", "patient_id", "clinical_text_min")
SAID = [
    "Frozen encoders; 247 photographs to train on, 60 to test. The text was templated from metadata: no clinician",
    "wrote it, and no model. Settings are those of the study of HAM10000, chosen there, but for batches of 32. With",
    "60 test photographs a point of accuracy is less than one photograph: read the intervals, which are wide.",
    "The image features come from `vl-dermnet features pad_ufes_20 --backbone facebook/dinov2-small --layers 4",
    "--patch-mean --out pad-dino.npz`; `minilm` is a folder with sentence-transformers/all-MiniLM-L6-v2.",
]


def main(
    data: Annotated[Path, typer.Argument(help="Folder with train/, test/ and their metadata.csv.")],
    features: Annotated[Path, typer.Argument(help="What `vl-dermnet features` wrote, with --layers 4 --patch-mean.")],
    work: Annotated[Path, typer.Argument(help="Where the experiment goes; finished runs are kept.")],
    text_backbone: Annotated[str, typer.Option(help="AutoModel folder or Hub id for the texts.")],
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    jobs: Annotated[int, typer.Option(min=1, help="Heads trained at once, as of train --jobs.")] = 1,
) -> None:
    """Train the heads, five seeds each on both protocols, and write their table."""
    rows: list[dict[str, str]] = []
    for split in ("train", "test"):
        found = read_rows(data / split / "metadata.csv", COLUMNS)
        rows += [{**row, "path": f"{split}/{row['file_name']}", "split": split} for row in found]
    listed = write_list(
        work / "list.csv", [(row["path"], row["split"], row["label"], row["patient_id"]) for row in rows]
    )
    texts = write_text_features(
        work / "texts.npz", text_backbone, {row["path"]: row["clinical_text_min"] for row in rows}, 64
    )
    config = TrainConfig(
        dataset=str(listed),
        features=(features, texts),
        image_features=("pooled", "pooled_2", "pooled_3", "pooled_4", "patch_mean"),
        text_features=("text",),
        image_features_of="DINOv2-S, four layers and patches",
        text_features_of=f"{Path(text_backbone).name} of age, region and symptoms",
        out=work / "experiment",
        models=MODELS,
        n_jobs=jobs,
        controls=("all",),
        control_models=("concat",),
        protocol="both",
        is_frozen=True,
        hidden_dims=(1024,),
        dropout=0.5,
        label_smoothing=0.1,
        epochs=30,
        batch_size=32,
        device="cpu",
    )
    write_results(out, "PAD-UFES-20, frozen encoders", SAID, {"Heads": run(config).folder})


if __name__ == "__main__":
    run_study(main)
