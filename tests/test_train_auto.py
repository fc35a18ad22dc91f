"""A model folder through AutoModel and AutoProcessor: the numbers of the predictor, no code from the folder."""

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from tests.hub_server import HubServer
from tests.hub_server.client import connect
from train.auto import (  # which repairs torchvision first
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoProcessor,
    FusionForImageClassification,
)
from train.config import TrainConfig
from train.experiment import run
from train.predict import Predictor

SAID = "A red plaque with silvery scale on the elbow."


@pytest.fixture
def models(photographs, make_run, backbones, tmp_path, private_cache):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    config = TrainConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "experiment",
        models=("attention_pooling", "image_only", "text_only"),
        n_seeds=1,
        protocol="official",
        image_backbone=str(backbones / "vit"),
        text_backbone=str(backbones / "bert"),
        is_frozen=True,
        epochs=1,
    )
    run(config)
    return {name: tmp_path / "experiment" / "models" / f"{name}-official-0" for name in config.models}


@pytest.fixture
def photograph(photographs):
    return next(photographs.rglob("*.jpg"))


def opened(photograph):
    with Image.open(photograph) as image:
        return image.copy()


def answers(folder, images, texts):
    model = AutoModel.from_pretrained(folder, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    with torch.inference_mode():
        logits = model(**processor(images=images, text=texts)).logits
    return torch.softmax(logits.double() / model.config.training["temperature"], dim=-1), model


@pytest.mark.parametrize("name", ["attention_pooling", "image_only", "text_only"])
@pytest.mark.parametrize("description", [SAID, ""])
def test_its_answer_is_the_predictors(models, photograph, name, description):
    probabilities, model = answers(models[name], [opened(photograph)], [description])
    expected = Predictor(models[name]).predict(photograph, description)
    named = {model.config.id2label[label]: value for label, value in enumerate(probabilities[0].tolist())}
    assert named == pytest.approx(expected.probabilities, abs=1e-6)
    assert model.config.label2id == {label: i for i, label in model.config.id2label.items()}


def test_a_batch_is_its_rows_and_without_texts_the_image_alone_is_judged(models, photograph):
    folder = models["attention_pooling"]
    upside_down = opened(photograph).rotate(180)
    images = [opened(photograph), upside_down]
    both, _ = answers(folder, images, [SAID, ""])
    one, _ = answers(folder, images[0], SAID)
    other, _ = answers(folder, [upside_down], None)
    torch.testing.assert_close(both, torch.cat([one, other]), rtol=1e-5, atol=1e-6)


def test_the_loss_is_cross_entropy_and_has_gradients(models, photograph):
    folder = models["attention_pooling"]
    model, processor = AutoModelForImageClassification.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert isinstance(model, FusionForImageClassification)
    assert not model.training
    output = model(**processor(images=opened(photograph), text=SAID), labels=torch.tensor([1]))
    log_probabilities = torch.log_softmax(output.logits, dim=-1)
    torch.testing.assert_close(output.loss, -log_probabilities[0, 1])
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.fusion_model.fusion.parameters())


def test_what_is_saved_again_is_the_same_model(models, photograph, tmp_path):
    folder = models["attention_pooling"]
    before, model = answers(folder, [opened(photograph)], [SAID])
    model.save_pretrained(tmp_path / "again")
    after, _ = answers(tmp_path / "again", [opened(photograph)], [SAID])
    assert torch.equal(before, after)
    assert read_json(tmp_path / "again" / "config.json") == read_json(folder / "config.json")


def test_it_comes_from_the_hub_at_a_revision_without_code(models, photograph, tmp_path, monkeypatch):
    folder = models["image_only"]
    expected, _ = answers(folder, [opened(photograph)], None)
    with HubServer(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        api, cache = HfApi(), tmp_path / "cache"
        api.create_repo("me/model", repo_type="model")
        (folder / "evil.py").write_text("raise SystemExit")
        commit = api.upload_folder(repo_id="me/model", folder_path=folder, repo_type="model").oid
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="me/model", repo_type="model")
        model = AutoModel.from_pretrained("me/model", revision=commit, cache_dir=cache)
        processor = AutoProcessor.from_pretrained("me/model", revision=commit, cache_dir=cache)
    logits = model(**processor(images=[opened(photograph)])).logits
    found = torch.softmax(logits.double() / model.config.training["temperature"], dim=-1)
    torch.testing.assert_close(found, expected)
    assert [file.name for file in cache.rglob("fusion.safetensors")]
    assert not list(cache.rglob("evil.py"))


def test_a_cmyk_and_a_transparent_photograph_are_seen_as_training_sees_them(models, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 4), dtype=np.uint8)
    for image, name in ((Image.fromarray(pixels, "RGBA"), "a.png"), (Image.fromarray(pixels, "CMYK"), "b.tiff")):
        image.save(tmp_path / name)
        found, model = answers(models["image_only"], [image], None)
        expected = Predictor(models["image_only"]).predict(tmp_path / name).probabilities
        named = {model.config.id2label[label]: value for label, value in enumerate(found[0].tolist())}
        assert named == pytest.approx(expected, abs=1e-6)


def test_half_precision_is_asked_for_as_of_any_model(models):
    model = AutoModel.from_pretrained(models["image_only"], dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_what_it_cannot_do_is_said(models, photograph, tmp_path):
    folder = models["attention_pooling"]
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    with pytest.raises(UserError, match="without the option device_map"):
        AutoModel.from_pretrained(folder, device_map="auto")
    with pytest.raises(UserError, match="not made of a config alone"):
        AutoModel.from_config(AutoConfig.from_pretrained(folder))
    with pytest.raises(ValueError, match="pixel_values are needed"):
        model(**processor(text=[SAID]))
    with pytest.raises(ValueError, match="1 images and 2 texts"):
        processor(images=[opened(photograph)], text=[SAID, SAID])
    (folder / "fusion.safetensors").write_bytes(b"\x00" * 16)
    with pytest.raises(UserError, match="is damaged"):
        AutoModel.from_pretrained(folder)
