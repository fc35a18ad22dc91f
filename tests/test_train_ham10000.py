"""Fine-tuning on HAM10000: one command from its zip and metadata to a table, with lesions kept apart and no dx_type."""

import csv
import io
import subprocess
import sys
import zipfile
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

from builders.dataset_folder import read_sets
from builders.errors import UserError
from builders.files import read_json
from train.config import TrainConfig
from train.data import load_examples, split_of
from train.model import load_fusion_model
from train.origin import said_of_texts
from train.studies import ham10000, pad_ufes_20
from train.studies.ham10000 import COLUMNS, METADATA
from train.studies.ham10000_fine_tuned import IMAGES, dataset_of, main, said_of

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")
N_OF = {"train": 4, "val": 2, "test": 2}  # of each class


def write_data(folder, change=lambda rows: rows):
    """16 photographs of two classes as HAM10000 has them; the first test photograph of each is of a train lesion."""
    rows = []
    with zipfile.ZipFile(folder / IMAGES, "w") as archive:
        for shade, dx in enumerate(("mel", "nv")):
            for split, n in N_OF.items():
                for number in range(n):
                    name = f"{split}/{dx}/ISIC_{len(rows):07}.jpg"
                    picture = io.BytesIO()
                    Image.new("RGB", (20, 15), (150 * shade + 20, 9 * number, len(rows) * 7)).save(picture, "JPEG")
                    archive.writestr(name, picture.getvalue())
                    lesion = f"{dx}-train-0" if (split, number) == ("test", 0) else f"{dx}-{split}-{number}"
                    site = "unknown" if number == 1 else "back"
                    rows.append((name, split, dx, lesion, f"{40 + number}.0", "female", site, "histo"))
    with (folder / METADATA).open("w", newline="") as file:
        csv.writer(file).writerows([(*COLUMNS, "dx_type"), *change(rows)])
    return folder


@pytest.fixture
def data(tmp_path):
    (tmp_path / "ham").mkdir()
    return write_data(tmp_path / "ham")


@pytest.fixture
def fine_tune(data, tmp_path, backbones):
    """The study's command on small encoders, for one seed and epoch; which blocks are trained is left to say."""
    small = {"image_backbone": str(backbones / "vit"), "text_backbone": str(backbones / "bert"), "batch_size": 4}
    once = {"seeds": 1, "epochs": 1, "bf16": False, "device": "cpu", "out": tmp_path / "page"}
    return partial(main, data, tmp_path / "work", **small, **once)


def test_texts_are_sentences_of_the_metadata_and_the_dataset_says_that_no_vlm_wrote_them(data, tmp_path):
    dataset = dataset_of(data, tmp_path / "work")
    examples = load_examples(TrainConfig(dataset=str(dataset), out=tmp_path / "out", images=data / IMAGES))
    assert len(examples.texts) == 2 * sum(N_OF.values())
    assert set(examples.texts) == {
        "A 40-year-old female, lesion on back.",
        "A 41-year-old female, lesion on an unknown site.",
        "A 42-year-old female, lesion on back.",
        "A 43-year-old female, lesion on back.",
    }
    (made,) = read_sets(dataset)
    assert made.run["texts"] == (
        "One sentence per photograph, written by a program from HAM10000's metadata.csv; no model saw anything."
    )
    assert said_of_texts({"dataset": "x"}, examples.described_by) == (
        "Descriptions come from a table, under the name of HAM10000's metadata.csv (engine scripted): "
        "no VLM wrote them."
    )


def test_the_official_split_is_the_sources_and_the_clean_one_tests_on_unseen_lesions(data, tmp_path):
    dataset = dataset_of(data, tmp_path / "work")
    examples = load_examples(TrainConfig(dataset=str(dataset), out=tmp_path / "out"))
    official, clean = (split_of(examples, protocol) for protocol in ("official", "clean"))
    assert [len(official.train), len(official.validation), len(official.test)] == [2 * n for n in N_OF.values()]
    groups = np.array(examples.groups)
    assert set(groups[official.test]) == {"mel-train-0", "mel-test-1", "nv-train-0", "nv-test-1"}
    assert set(groups[clean.test]) == {"mel-test-1", "nv-test-1"}
    assert np.array_equal(clean.train, official.train)


def test_the_dataset_is_kept_until_a_sentence_changes(data, tmp_path):
    dataset = dataset_of(data, tmp_path / "work")
    shards = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.parquet")}
    assert dataset_of(data, tmp_path / "work") == dataset
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*.parquet")} == shards
    before = read_sets(dataset)[0].build["rows_sha256"]
    write_data(data, lambda rows: [(*row[:4], "85.0", *row[5:]) for row in rows])
    assert read_sets(dataset_of(data, tmp_path / "work"))[0].build["rows_sha256"] != before


def test_one_command_fine_tunes_writes_a_page_and_trains_nothing_twice(fine_tune, tmp_path, backbones):
    command = partial(fine_tune, image_layers=None, text_layers=0, model=["concat"])
    command()
    experiment = tmp_path / "work" / "experiment"
    predictions = {path: path.stat().st_mtime_ns for path in (experiment / "predictions").iterdir()}
    assert {path.stem for path in predictions} == {"concat-official-0", "concat-clean-0"}
    trained, _ = load_fusion_model(experiment / "models" / "concat-official-0")
    for tower, name, is_trained in ((trained.text, "bert", False), (trained.image, "vit", True)):
        before, after = load_file(backbones / name / "model.safetensors"), tower.model.state_dict()
        assert any(not torch.equal(after[key], before[key]) for key in before) == is_trained, name
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.startswith("# HAM10000 on DermaMNIST's split, encoders partly unfrozen\n")
    assert "Text encoder: bert, frozen." in page
    assert " cores, no GPU; " in page
    assert "no VLM wrote them" in page
    chosen = read_json(experiment / "results.json")["runs"]["concat-official-0"]["best"]
    assert f"| concat | official | {chosen['epoch']} | {chosen['validation_macro_f1']:.3f} |" in page
    assert read_json(tmp_path / "page.json")["machine"]["gpu"] is None
    command()
    assert {path: path.stat().st_mtime_ns for path in (experiment / "predictions").iterdir()} == predictions


def test_the_page_says_which_blocks_are_trained():
    config = TrainConfig(dataset="x", out="x", image_layers=2, image_backbone="a/b", text_backbone="a/c", is_bf16=True)
    assert said_of(config)[3:6] == [
        "Image encoder: b, blocks trained, from the last: 2, at a learning rate of 5e-05.",
        "Text encoder: c, trained as a whole, at a learning rate of 2e-05.",
        "10 epochs in batches of 32, bfloat16.",
    ]
    assert said_of(config)[6] == "Train images are flipped and shifted at random."
    assert said_of(config.model_copy(update={"head_epochs": 60}))[5:8] == [
        "First, 60 epochs of the heads alone, on frozen encoders and images as they are; then",
        "they learn at the rate of the encoders (LP-FT, https://arxiv.org/abs/2202.10054).",
        "10 epochs in batches of 32, bfloat16.",
    ]


def test_the_page_says_that_images_were_mirrored_alone_or_not_at_all():
    config = TrainConfig(dataset="x", out="x", image_layers=1, caches_frozen_blocks=True, protocol="official")
    assert said_of(config)[6:8] == [
        "Train images are mirrored at random and not augmented otherwise: what enters the first trained block of",
        "the image encoder was computed once, of each photograph and its mirror image.",
    ]
    assert said_of(config)[-1] == "Only the official protocol was asked for here."
    plain = config.model_copy(update={"is_augmented": False, "protocol": "both"})
    assert said_of(plain)[6] == "Images are not augmented."
    assert said_of(plain)[-1] == "across the two protocols."


def test_a_laptops_command_trains_last_blocks_on_one_protocol(fine_tune, tmp_path):
    command = partial(fine_tune, image_layers=1, text_layers=1, cache_frozen_blocks=True, model=["image_only"])
    with pytest.raises(UserError, match=r"unknown protocol 'cleaner'"):
        command(protocol="cleaner")
    command(protocol="clean", image_lr=2e-4)
    experiment = tmp_path / "work" / "experiment"
    assert [path.stem for path in (experiment / "predictions").iterdir()] == ["image_only-clean-0"]
    assert len(list((experiment / "cache").glob("image-blocks-*/states.npy"))) == 1
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Train images are mirrored at random" in page
    assert "Image encoder: vit, blocks trained, from the last: 1, at a learning rate of 0.0002." in page


def test_the_official_protocol_alone_is_also_told_on_lesions_that_it_has_not_seen(fine_tune, tmp_path):
    fine_tune(image_layers=1, text_layers=0, protocol="official", model=["concat", "image_only"], seeds=2)
    page = (tmp_path / "page.md").read_text(encoding="utf-8").splitlines()
    start = page.index("The same models on the 2 test images whose lesion is in neither train nor validation:")
    for line, model in zip(page[start + 4 : start + 6], ("concat", "image_only"), strict=True):
        accuracies, f1s = [], []
        for seed in range(2):
            rows = pq.read_table(tmp_path / "work" / "experiment" / "predictions" / f"{model}-official-{seed}.parquet")
            unseen = rows.filter(pc.is_in(rows["group"], pa.array(["mel-test-1", "nv-test-1"]))).to_pydict()
            assert len(unseen["label"]) == 2
            accuracies.append(100 * accuracy_score(unseen["label"], unseen["predicted"]))
            f1s.append(f1_score(unseen["label"], unseen["predicted"], average="macro"))
        name, right, _, f1, _ = (cell.strip() for cell in line.strip("|").split("|"))
        assert (name, right, f1) == (model, f"{np.mean(accuracies):.2f}", f"{np.mean(f1s):.4f}")
    assert page[start + 6] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "1 photographs of .* have no sentence: train/mel/ISIC_0000000.jpg\n  fix: give the"),
        (
            lambda rows: [*rows, ("test/nv/new.jpg", *rows[-1][1:])],
            "1 photographs of .* are not there: test/nv/new.jpg",
        ),
        (lambda rows: [(rows[0][0], "test", *rows[0][2:])], "says split test and dx mel of train/mel/ISIC_0000000.jpg"),
    ],
)
def test_metadata_of_other_photographs_is_refused(data, tmp_path, change, message):
    write_data(data, change)
    with pytest.raises(UserError, match=message):
        dataset_of(data, tmp_path / "work")


def test_a_folder_without_the_metadata_says_what_it_has_to_hold(data, tmp_path):
    (data / METADATA).unlink()
    with pytest.raises(UserError) as raised:
        dataset_of(data, tmp_path / "work")
    assert str(raised.value) == (f"{data} holds no metadata.csv\n  fix: give a folder with metadata.csv in it")


@pytest.mark.parametrize("study", [ham10000, pad_ufes_20])
def test_a_study_of_features_without_its_data_says_what_is_missing(study, tmp_path):
    with pytest.raises(UserError, match=r"holds no metadata.csv\n  fix: give a folder with metadata.csv in it"):
        study.main(tmp_path, tmp_path / "features.npz", tmp_path / "work", "none", tmp_path / "out")


def test_what_a_user_can_mend_in_a_study_is_told_without_a_traceback(tmp_path):
    words = [str(tmp_path), str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "train.studies.dermnet_heads", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
