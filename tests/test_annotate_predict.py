"""predict: photographs that nobody describes are described first, as those of the training set were, and it says so."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from annotate.cli import app
from annotate.describe_few import Asked, describe_few
from annotate.engines import NEEDS
from annotate.models import resolve_model
from annotate.progress import Progress
from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json, write_json
from train.config import TrainConfig
from train.experiment import run
from train.predict import Predictor

TINY = {"id": "tiny-internvl", "revision": resolve_model("tiny-internvl", None, False).revision}
REFUSES_FIRST = {"": {"texts": ["I'm sorry, I cannot help.", "A flat, small spot."]}}


@pytest.fixture
def model(photographs, make_run, backbones, tmp_path, private_cache):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    config = TrainConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "experiment",
        models=("concat", "image_only", "text_only", "attention_pooling"),
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


def test_a_set_that_no_model_wrote_is_answered_without_text_and_names_what_to_type(model, photographs):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    asked = ask(model, photograph)
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.startswith(
        f"note: no description of {photograph}: nothing to describe the photographs with: its descriptions came from "
        "the engine 'scripted'\n  fix: --vlm MODEL\n  to have one: --description TEXT, --vlm MODEL, or --endpoint URL "
        "(--describe fails where there is none)\n"
    )
    assert "this answer is from the image alone, the model was trained with both" in asked.stderr
    assert "reviewed by nobody" not in asked.output


def test_who_insists_on_a_description_is_told_why_there_is_none(model, photographs):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    asked = ask(model, photograph, "--describe")
    assert isinstance(asked.exception, UserError)
    assert str(asked.exception) == (
        f"{photograph} has no description, and --describe asks for one: nothing to describe the photographs with: its "
        "descriptions came from the engine 'scripted'\n  fix: --vlm MODEL\n"
        "  fix: --description TEXT, --vlm MODEL, or --endpoint URL"
    )


NO_VLM = {
    "a checkpoint that is not here": (
        {"model": {"id": "InternVL3-8B", "revision": "sha256:0"}, "engine": {"kind": "vllm"}},
        [],
        "unknown model 'InternVL3-8B': no such folder",
    ),
    "the Hub out of reach": (
        {"model": {"id": "example/not-in-the-cache", "revision": "0" * 40}, "engine": {"kind": "vllm"}},
        [],
        "the model example/not-in-the-cache is not in the cache, and the Hub cannot be reached\n"
        "  fix: hf download example/not-in-the-cache   on a machine with network, or --model FOLDER",
    ),
    "a run through a server": (
        {"model": {"id": "served", "revision": "as served"}, "engine": {"kind": "openai"}},
        [],
        "came from served on a server, and none is named",
    ),
    "a server that is gone": (
        {"model": {"id": "served", "revision": "as served"}, "engine": {"kind": "openai"}},
        ["--endpoint", "http://127.0.0.1:9"],
        "no endpoint answers",
    ),
    "an engine that does not start": (
        {"model": {"id": "tiny-internvl", "revision": "sha256:0"}, "engine": {"kind": "vllm"}},
        ["--vlm", "BACKBONE"],
        "transformers cannot load bert (BertModel)",
    ),
}


STARTS_A_PROCESS = "an engine that does not start"


@pytest.mark.parametrize(
    "what", [pytest.param(each, marks=[pytest.mark.slow] if each == STARTS_A_PROCESS else []) for each in NO_VLM]
)
def test_where_the_vlm_cannot_be_asked_the_image_answers_and_the_reason_is_told(
    what, model, photographs, backbones, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    facts, options, why = NO_VLM[what]
    made_by(model, **facts)
    options = [str(backbones / "bert") if each == "BACKBONE" else each for each in options]
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    engine = [] if "--endpoint" in options else ["--engine", "transformers"]
    asked = ask(model, photograph, *options, *engine, "--json")
    assert asked.exit_code == 0, asked.output
    answer = json.loads(asked.stdout)["predictions"][0]
    assert why in answer["description_missing"]["why"]
    assert "--description TEXT" in answer["description_missing"]["fix"]
    assert (answer["text"], answer["description"], answer["is_machine_written"]) == ("missing", "", False)
    assert answer["probabilities"] == Predictor(model).predict(photograph, None).probabilities
    assert f"note: no description of {photograph}: " in asked.stderr
    assert why in asked.stderr


def test_an_engine_that_is_not_installed_leaves_the_image_to_answer(model, photographs, monkeypatch):
    monkeypatch.setitem(NEEDS, "vllm", ("not_installed_anywhere",))
    made_by(model, model=TINY, engine={"kind": "vllm"})
    asked = ask(model, photographs / "test" / "papule" / "pap-0.jpg", "--engine", "vllm")
    assert asked.exit_code == 0, asked.output
    assert "engine 'vllm' needs packages that are not installed: not_installed_anywhere." in asked.stderr


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({"retries": 0, "retry_flags": ["refusal"]}, "I'm sorry, I cannot help."),
        ({"retries": 1, "retry_flags": ["empty"]}, "I'm sorry, I cannot help."),
        ({"retries": 1, "retry_flags": ["refusal"]}, "A flat, small spot."),
    ],
)
def test_a_photograph_is_asked_about_with_the_engine_arguments_and_retries_of_the_run(
    photographs, tmp_path, sampling, text
):
    (tmp_path / "script.json").write_text(json.dumps(REFUSES_FIRST))
    engine = {"kind": "scripted", "args": {"script": str(tmp_path / "script.json"), "token": "***"}}
    facts = {"model": TINY, "prompt": {"text": "Say what you see."}, "sampling": sampling, "engine": engine}
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    (told,) = describe_few([photograph], facts, Asked(vlm="tiny-internvl", engine="scripted"), Progress(is_silent=True))
    assert told.text == text


def test_a_named_model_is_asked_where_nothing_tells_of_the_training_set(photographs):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    (told,) = describe_few([photograph], None, Asked(vlm="tiny-internvl", engine="scripted"), Progress(is_silent=True))
    assert told.text


def test_another_checkpoint_of_the_same_name_is_refused_and_told_of_where_it_was_named(model, photographs):
    made_by(model, model={**TINY, "revision": "sha256:0"}, engine={"kind": "vllm"})
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    difference = (
        "the descriptions of its training set came from tiny-internvl at sha256:0, and tiny-internvl here is "
        f"{TINY['revision']}"
    )
    asked = ask(model, photograph)
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.startswith(
        f"note: no description of {photograph}: {difference}\n"
        "  fix: --vlm FOLDER of that checkpoint, or --vlm tiny-internvl to ask this one\n"
    )
    named = ask(model, photograph, "--vlm", "tiny-internvl", "--engine", "scripted", "--json")
    assert named.stderr.startswith(f"note: {difference}\n")
    assert json.loads(named.stdout)["predictions"][0]["text"] == "given"


def test_a_server_of_the_model_describes_what_its_run_described(model, photographs):
    pytest.importorskip("openai")
    from tests.test_annotate_openai import Server

    made_by(model, model={"id": "served", "revision": "as served"}, engine={"kind": "openai"})
    server = Server()
    asked = ask(model, photographs / "test" / "papule" / "pap-0.jpg", "--endpoint", server.url, "--json")
    server.shutdown()
    server.server_close()
    assert asked.exit_code == 0, asked.output
    answer = json.loads(asked.stdout)["predictions"][0]
    assert answer["description"]
    assert (answer["text"], answer["is_machine_written"]) == ("given", True)
    assert "description_missing" not in answer
    (prompt,) = server.prompts
    assert prompt.startswith("You are a dermatologist.")


def test_one_photograph_that_is_not_described_does_not_take_the_others_text(model, photographs):
    pytest.importorskip("openai")
    from tests.test_annotate_openai import Server

    made_by(model, model={"id": "served", "revision": "as served"}, engine={"kind": "openai"})
    images = [photographs / "test" / "papule" / "pap-0.jpg", photographs / "test" / "plaque" / "pla-0.jpg"]
    server = Server()
    told = [400, None]
    server.behave = lambda number: told[number]
    asked = ask(model, *images, "--endpoint", server.url, "--json")
    server.shutdown()
    server.server_close()
    answers = json.loads(asked.stdout)["predictions"]
    assert sorted(each["text"] for each in answers) == ["given", "missing"]
    missing = next(each for each in answers if each["text"] == "missing")
    assert "the server refused it" in missing["description_missing"]["why"]
    assert f"note: no description of {missing['image']}: it could not be described" in asked.stderr


def test_a_server_and_an_engine_of_this_machine_exclude_each_other(model, photographs):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    asked = ask(model, photograph, "--endpoint", "http://127.0.0.1:9", "--engine", "vllm")
    assert str(asked.exception) == (
        "--endpoint names a server, and --engine vllm loads the model here\n  fix: leave one out"
    )
    unknown = ask(model, photograph, "--engine", "vlm")
    assert str(unknown.exception).startswith("unknown engine 'vlm'; choose one of: auto, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--revision", "v1"], "--revision v1 is of --vlm, and none is named\n  fix: --vlm MODEL, or leave it out"),
        (
            ["--endpoint", "http://127.0.0.1:9", "--trust-remote-code"],
            "--endpoint names a server, and --trust-remote-code is of a model here\n  fix: leave one out",
        ),
    ],
)
def test_options_of_a_vlm_that_is_not_loaded_here_are_refused(model, photographs, options, message):
    assert str(ask(model, photographs / "test" / "papule" / "pap-0.jpg", *options).exception) == message


@pytest.mark.parametrize("revision", [[], ["--revision", "main"]])
def test_code_of_a_vlm_runs_only_at_a_commit(model, photographs, revision):
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    options = ["--engine", "transformers", "--vlm", "a/b", "--trust-remote-code", *revision, "--describe"]
    said = str(ask(model, photograph, *options).exception)
    assert "--trust-remote-code runs code of a/b: pin the commit that you have read" in said


def test_a_model_that_reads_text_alone_does_not_answer_without(model, photographs):
    asked = ask(model.with_name("text_only-official-0"), photographs / "test" / "papule" / "pap-0.jpg", "--no-describe")
    assert "text_only-official-0 reads nothing else" in str(asked.exception)


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
    facts = {"model": TINY, "engine": {"kind": "vllm", "dtype": "float32"}}
    made_by(model, **facts)
    asked = ask(model, *images, copied, "--engine", "transformers", "--json")
    assert asked.exit_code == 0, asked.output
    answers = json.loads(asked.stdout)["predictions"]
    assert all(each["is_machine_written"] and each["text"] == "given" for each in answers)
    assert answers[0]["description"] == answers[2]["description"]
    told = describe_few(
        images,
        read_json(model / "config.json")["training"]["described_by"],
        Asked(engine="transformers"),
        Progress(is_silent=True),
    )
    assert [each["description"] for each in answers[:2]] == [each.text for each in told]
    assert len({each.text for each in told}) == 2
    spoken = ask(model, images[0], "--engine", "transformers")
    assert "description, written by a machine, reviewed by nobody: " in spoken.output
