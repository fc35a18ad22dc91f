"""The whole path in one go: the commands a user would type, typed for them, on sample photographs and a tiny model."""

import csv
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from annotate.progress import Progress
from builders.errors import UserError
from builders.sample.layout import ATTRIBUTES_FILE

SAMPLE_SEED = 20_000  # the tiny model was trained on other seeds: it has seen none of these photographs
N_COPIES = 2  # files that `sample` adds to the photographs, flaws as DermNet has them
MODELS = ("text_only", "image_only", "attention_pooling")


def run_demo(out: Path, n_images: int, n_seeds: int, engine: str) -> None:
    """Render photographs, index, describe, build and load the dataset, train, predict; say where each thing is.

    Every step is one command in a process of its own, shown before it runs. What an earlier, interrupted demo in
    `out` finished is not done again. Raises `UserError` where a step ends with an error.
    """
    progress, began = Progress(), time.monotonic()
    photos, run, dataset, experiment = out / "photos", out / "run", out / "dataset", out / "experiment"
    _render(progress, photos, n_images)
    index = out / "index.parquet"
    _type(progress, "index", str(photos), "--out", str(index))
    model = ("--model", "tiny-internvl", "--dtype", "float32", "--engine", engine)
    _type(progress, "annotate", str(photos), "--out", str(run), *model, "--index", str(index))
    _type(progress, "build", str(photos), "--run", str(run), "--out", str(dataset), "--with-images")
    _show_loading(progress, dataset)
    backbones = ("--image-backbone", "tiny-internvl", "--text-backbone", "tiny-internvl", "--frozen")
    chosen = [word for name in MODELS for word in ("--model", name)]
    train = ("--seeds", str(n_seeds), "--protocol", "clean", *backbones)
    _type(progress, "train", str(dataset), "--out", str(experiment), *chosen, *train)
    picture = min((photos / "test").glob("*/*.jpg"))
    fitted = experiment / "models" / "attention_pooling-clean-0"
    _type(progress, "predict", str(fitted), str(picture), "--description", _description_of(run, photos, picture))
    progress.say(f"\ndone in {time.monotonic() - began:.0f} s; everything is in {out}:")
    for what, where in (
        ("photographs", photos),
        ("descriptions", run),
        ("dataset and its card", dataset / "README.md"),
        ("models, predictions, table", experiment),
    ):
        progress.say(f"  {what:27} {where}")
    progress.say("The photographs are rendered, the words are a toy model's. Nothing here is for clinical use.")


def _render(progress: Progress, photos: Path, n_images: int) -> None:
    """Render the photographs, unless an earlier demo did; what an interrupted one left is removed first.

    A file beside `photos` tells that from somebody's own folder. Raises `UserError` where an earlier demo rendered
    another number of them, or `photos` is of no demo.
    """
    under_way = photos.with_name(".photos-under-way")
    if (photos / ATTRIBUTES_FILE).exists():  # written last
        with (photos / ATTRIBUTES_FILE).open(encoding="utf-8", newline="") as file:
            n_there = sum(1 for _ in csv.DictReader(file)) - N_COPIES
        if n_there != n_images:
            raise UserError(
                f"{photos} holds the {n_there} photographs of an earlier demo, not {n_images}",
                f"vl-dermnet demo --out {shlex.quote(str(photos.parent))} --images {n_there}   or another --out",
            )
    else:
        if under_way.exists():
            shutil.rmtree(photos, ignore_errors=True)
        elif photos.exists() and (not photos.is_dir() or any(photos.iterdir())):
            raise UserError(f"{photos} is there already and is not of a demo", "vl-dermnet demo --out demo2")
        photos.parent.mkdir(parents=True, exist_ok=True)
        under_way.touch()
        _type(progress, "sample", str(photos), "--images", str(n_images), "--seed", str(SAMPLE_SEED))
    under_way.unlink(missing_ok=True)


def _type(progress: Progress, *words: str) -> None:
    """Show a command and run it. Raises `UserError` where it fails; its own message stands above."""
    progress.say(f"\n$ {shlex.join(['vl-dermnet', *words])}")
    ended = subprocess.run([sys.executable, "-m", "annotate", *words], check=False)
    if ended.returncode:
        raise UserError(f"the demo stopped: `vl-dermnet {words[0]}` ended with exit code {ended.returncode}")


def _show_loading(progress: Progress, dataset: Path) -> None:
    """Open the dataset as anybody would and print its features and one description."""
    code = (
        "import datasets, sys; datasets.disable_progress_bars(); d = datasets.load_dataset(sys.argv[1]);"
        "print({name: part.num_rows for name, part in d.items()}); print(*d['train'].features.items(), sep='\\n');"
        "row = d['test'][0]; print(row['image'].size, '-', row['description'])"
    )
    progress.say(f'\n>>> datasets.load_dataset("{dataset}")')
    subprocess.run([sys.executable, "-c", code, str(dataset)], check=True)


def _description_of(run: Path, photos: Path, picture: Path) -> str:
    from builders.run_folder import read_run
    from builders.schema import image_id_of

    found = read_run(run).descriptions[image_id_of(picture.relative_to(photos).as_posix())]
    return found.description
