"""A model folder's card: facts of the run, foreign text inert; and the folder goes to the Hub and back as it is."""

import pytest
from huggingface_hub import ModelCard, snapshot_download

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from train.config import TrainConfig
from train.experiment import run
from train.model_card import model_card
from train.predict import Predictor

NASTY = 'a|b <img src=x onerror="y"> `c`\n# \u202eevil'


@pytest.fixture
def model(photographs, make_run, backbones, tmp_path, private_cache):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    config = TrainConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "experiment",
        models=("concat",),
        n_seeds=1,
        protocol="official",
        image_backbone=str(backbones / "vit"),
        text_backbone=str(backbones / "bert"),
        is_frozen=True,
        epochs=1,
    )
    run(config)
    return tmp_path / "experiment" / "models" / "concat-official-0"


def test_the_card_tells_the_facts_of_the_run(model):
    card = ModelCard.load(model / "README.md")
    training = read_json(model / "config.json")["training"]
    assert card.data.pipeline_tag == "image-classification"
    assert "dermatology" in card.data.tags
    text = card.text
    assert f"| Validation macro-F1 | {training['best']['validation_macro_f1']:.4f} |" in text
    assert f"| Temperature | {training['temperature']:.4f} |" in text
    assert f"| Dataset fingerprint | {training['fingerprint']} |" in text
    assert f"| Trained on | {training['n_train']} photographs, protocol official |" in text
    assert "clinical use" in text
    assert "under the name of example/tiny-doctor (engine scripted)" in text
    assert "No clinician reviewed them." in text


def test_the_card_tells_the_test_scores_of_its_kind_with_intervals_and_protocols(model):
    table = read_json(model.parents[1] / "results.json")["table"]
    ours = next(row for row in table["rows"] if row["model"] == "concat")["ours"]["official"]
    text = (model / "README.md").read_text(encoding="utf-8")
    low, high = (ours["accuracy_bootstrap"][end] for end in ("low", "high"))
    assert f"| official | 1 | {ours['n_test']} | {ours['accuracy_mean']:.1f} | {low:.1f} to {high:.1f} |" in text
    values = read_json(model / "config.json")
    score = {**ours, "accuracy_mean": 71.25, "accuracy_sd": 0.51}
    delta = {"accuracy": {"mean": -1.5, "low": -2.25, "high": 0.75}}
    row = {"model": "concat", "ours": {"clean": score}, "against_image_only": {"clean": delta}}
    told = model_card(values, {"rows": [row, {"model": "gating"}]})
    assert "| 71.2 ± 0.5 |" in told
    assert "| −1.5, −2.2 to +0.8 |" in told
    assert "They are in the experiment's `results.json`" in model_card(values)
    assert "Of its text side" not in model_card({**values, "text": None})
    values["training"]["described_by"]["engine"]["kind"] = "vllm"
    assert "Descriptions are machine-written, by example/tiny-doctor at 0123456789ab. No clinician" in model_card(
        values
    )


def test_foreign_text_in_a_card_does_nothing():
    part = {"source": NASTY, "revision": NASTY, "architecture": NASTY}
    training = {
        "commit": NASTY,
        "fingerprint": NASTY,
        "protocol": NASTY,
        "config": {"dataset": NASTY, "set_name": NASTY},
    }
    text = model_card({"fusion": NASTY, "class_names": [NASTY], "image": part, "text": None, "training": training})
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\n# \\" not in text
    assert text.count("\n# ") == 1
    assert text.count("| Dataset | ") == 1


def test_a_trained_model_is_published_and_answers_from_what_came_back(model, hub, photographs, tmp_path):
    done = publish(PublishConfig(folder=model, repo_id="me/model"))
    assert done.repo_type == "model"
    back = snapshot_download("me/model", local_dir=tmp_path / "back")
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    ours, theirs = (Predictor(folder).predict(photograph, "flat spot") for folder in (model, tmp_path / "back"))
    assert str(back) == str(tmp_path / "back")
    assert ours.probabilities == theirs.probabilities


@pytest.mark.parametrize("stray", ["patients.csv", "w.h5", "image_backbone/notes.txt"])
def test_a_file_that_training_did_not_write_is_not_published(model, hub, stray):
    (model / stray).write_text("a name")
    with pytest.raises(UserError, match=f"holds files that training does not write: {stray}"):
        publish(PublishConfig(folder=model, repo_id="me/model"))


def test_what_only_looks_like_a_model_is_not_published(model, hub):
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is neither a dataset folder"):
        publish(PublishConfig(folder=model, repo_id="me/model"))


def test_a_pickle_is_not_published(model, hub):
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"holds files that training does not write: pytorch_model\.bin"):
        publish(PublishConfig(folder=model, repo_id="me/model"))
