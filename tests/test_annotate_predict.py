"""predict: photographs that nobody describes are described first, as those of the training set were, and it says so."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from annotate.cli import app
from annotate.describe_few import describe_few
from annotate.progress import Progress
from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json, write_json
from train.config import TrainConfig
from train.experiment import run
from train.predict import Predictor

PROMPT = "Say what you see."


@pytest.fixture
def model(photographs, make_run, backbones, tmp_path, private_cache):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    config = TrainConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "experiment",
        models=("concat", "image_only", "attention_pooling"),
        n_seeds=1,
        protocol="official",
        image_backbone=str(backbones / "vit"),
        text_backbone=str(backbones / "bert"),
        is_frozen=True,
        epochs=1,
    )
    run(config)
    return tmp_path / "experiment" / "models" / "concat-official-0"


def ask(*words):
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def made_by(folder, **changes):
    """Let a model's descriptions be made by something else."""
    values = read_json(folder / "config.json")
    values["training"]["described_by"] |= changes
    write_json(folder / "config.json", values)


def test_the_model_remembers_what_described_its_training_set(model):
    told = read_json(model / "config.json")["training"]["described_by"]
    assert told["model"]["id"] == "example/tiny-doctor"
    assert told["prompt"]["text"].startswith("You are a dermatologist.")


def test_a_set_that_no_model_wrote_names_what_to_type_instead(model, photographs):
    asked = ask(model, photographs / "test" / "papule" / "pap-0.jpg")
    assert isinstance(asked.exception, UserError)
    assert str(asked.exception) == (
        "nothing to describe the photographs with: its descriptions came from the engine 'scripted'\n"
        "  fix: --vlm MODEL, or --no-describe"
    )


def test_without_a_description_the_image_alone_answers_and_it_is_said(model, photographs):
    asked = ask(model, photographs / "test" / "papule" / "pap-0.jpg", "--no-describe")
    assert asked.exit_code == 0, asked.output
    assert "no description was given: this answer is from the image alone" in asked.output


def test_a_model_that_reads_no_text_asks_nobody(model, photographs):
    asked = ask(model.with_name("image_only-official-0"), photographs / "test" / "papule" / "pap-0.jpg", "--json")
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["predictions"][0]["is_machine_written"] is False


def test_a_broken_photograph_is_told_before_any_model_is_loaded(model, photographs):
    asked = ask(model, photographs / "train" / "plaque" / "broken.jpg", "--vlm", "no/such-model")
    assert "broken.jpg cannot be decoded" in str(asked.exception)


def test_a_heat_map_shows_the_weights_of_attention_pooling(model, photographs, tmp_path):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    pooling = model.with_name("attention_pooling-official-0")
    asked = ask(pooling, photograph, "--description", "flat spot, wide", "--heat-map", tmp_path / "map.png", "--json")
    assert asked.exit_code == 0, asked.output
    answer = json.loads(asked.stdout)["predictions"][0]
    assert [word for word, _ in answer["words"]] == ["flat", "spot", ",", "wide"]
    assert 0 < sum(weight for _, weight in answer["words"]) <= 1
    found = Predictor(pooling).explain(photograph, "flat spot, wide")
    assert found.patches.shape == (4, 4)
    assert 0 < found.patches.sum() < 1  # the class token has the rest
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size == found.seen.size


def test_a_fusion_that_does_not_attend_has_no_heat_map(model, photographs, tmp_path):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    asked = ask(model, photograph, "--description", "flat", "--heat-map", tmp_path / "map.png")
    assert "is a model of concat, which does not tell where it looks" in str(asked.exception)
    assert not (tmp_path / "map.png").exists()


def test_one_description_for_many_images_is_refused(tmp_path):
    asked = ask(tmp_path, "a.jpg", "b.jpg", "--description", "red")
    assert str(asked.exception).startswith("--description speaks of one image, and 2 were given")


@pytest.mark.slow
def test_photographs_are_described_by_the_model_of_the_training_set(model, tmp_path):
    from builders.sample import write_sample

    write_sample(tmp_path / "photos", n_images=40, seed=3)
    images = sorted((tmp_path / "photos").rglob("*.jpg"))[:2]
    copied = shutil.copy(images[0], tmp_path / "papule-named-so.jpg")
    facts = {"model": {"id": "tiny-internvl", "revision": "sha256:0"}, "engine": {"kind": "vllm", "dtype": "float32"}}
    made_by(model, **facts)
    asked = ask(model, *images, copied, "--engine", "transformers", "--json")
    assert asked.exit_code == 0, asked.output
    answers = json.loads(asked.stdout)["predictions"]
    assert all(each["is_machine_written"] and each["text"] == "given" for each in answers)
    assert answers[0]["description"] == answers[2]["description"]
    told = describe_few(
        images,
        read_json(model / "config.json")["training"]["described_by"],
        None,
        "transformers",
        Progress(is_silent=True),
    )
    assert [each["description"] for each in answers[:2]] == told
    assert len(set(told)) == 2
    spoken = ask(model, images[0], "--engine", "transformers")
    assert "description, written by a machine, reviewed by nobody: " in spoken.output
