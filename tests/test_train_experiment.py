"""train, as a whole: dataset → experiment folder → table → model folder → prediction, on three colours."""

import io
import shutil
import socket

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json, write_json
from tests.class_words import WORDS
from train.backbones import load_image_backbone
from train.experiment import run
from train.model import load_fusion_model
from train.predict import Predictor, predict
from train.table import experiment_table

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(experiment_config):
    return experiment_config


def predictions(config, name):
    return pq.read_table(config.out / "predictions" / f"{name}.parquet")


def test_the_whole_matrix_is_trained_and_every_number_follows_from_the_predictions(config):
    settings = config(models=(), protocol="both", n_seeds=2, lr=0.01)
    experiment = run(settings)
    assert len(experiment.trained) == 6 * 2 * 2
    results = read_json(settings.out / "results.json")
    assert results["table"] == experiment_table(settings.out).as_json()
    assert set(results["runs"]) == set(experiment.trained)
    for row in experiment_table(settings.out).rows:
        for protocol, score in row.ours.items():
            tables = [predictions(settings, f"{row.model}-{protocol}-{seed}").to_pydict() for seed in (0, 1)]
            expected = [f1_score(t["label"], t["predicted"], average="macro", zero_division=0) for t in tables]
            assert score.macro_f1_mean == pytest.approx(np.mean(expected))
            for t in tables:
                assert t["image_id"] == sorted(t["image_id"])
                assert np.isfinite(t["logits"]).all()


def test_fine_tuning_writes_the_changed_backbones(config, backbones):
    settings = config(is_frozen=False, epochs=1)
    run(settings)
    model, _ = load_fusion_model(settings.out / "models" / "attention_pooling-official-0")
    shared = settings.out / "backbones"
    from transformers import ViTModel

    before = ViTModel.from_pretrained(backbones / "vit").state_dict()
    after = model.image.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not shared.exists()


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_model_folder_answers_as_in_the_experiment_without_network(config, photographs, monkeypatch, is_frozen):
    settings = config(is_frozen=is_frozen)
    run(settings)
    folder = settings.out.parent / "elsewhere"
    shutil.copytree(settings.out / "models" / "attention_pooling-official-0", folder)
    table = predictions(settings, "attention_pooling-official-0")
    temperature = read_json(settings.out / "results.json")["runs"]["attention_pooling-official-0"]["temperature"]
    shutil.rmtree(settings.out)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))

    import hashlib

    predictor = Predictor(folder)
    expected = {row["image_id"]: row for row in table.to_pylist()}
    asked = 0
    for image in sorted((photographs / "test").rglob("*.jpg")):
        path = image.relative_to(photographs).as_posix()
        row = expected.get(hashlib.sha256(path.encode()).hexdigest()[:16])
        if row is not None:
            label = image.parent.name
            answer = predictor.predict(image, WORDS.get(label, "flat"))
            probabilities = (torch.tensor(row["logits"]) / temperature).softmax(0).tolist()
            names = predictor.config.class_names
            assert [answer.probabilities[name] for name in names] == pytest.approx(probabilities, abs=1e-4)
            assert answer.best == row["predicted"]
            asked += 1
    assert asked == len(expected)
    assert f"calibrated on the validation images alone (temperature {temperature:.2f})" in predictor.notice
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.rglob("*.pt"))


def test_without_a_description_the_answer_says_so(config, photographs):
    settings = config(models=("attention_pooling", "image_only"))
    run(settings)
    image = next((photographs / "test" / "papule").iterdir())
    both = settings.out / "models" / "attention_pooling-official-0"
    assert predict(both, image, "small raised spot").text == "given"
    for nothing in (None, "", "  "):
        answer = predict(both, image, nothing)
        assert answer.text == "missing"
        assert answer.message.startswith("no description was given: this answer is from the image alone")
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    image_only = predict(settings.out / "models" / "image_only-official-0", image)
    assert (image_only.text, image_only.message) == ("not used", "")


def test_predict_refuses_what_it_cannot_use(config, tmp_path, photographs):
    settings = config()
    run(settings)
    model = settings.out / "models" / "attention_pooling-official-0"
    image = next((photographs / "test" / "papule").iterdir())
    broken = photographs / "train" / "plaque" / "broken.jpg"
    for folder, asked, message in (
        (model, tmp_path / "absent.jpg", f"there is no image at {tmp_path / 'absent.jpg'}"),
        (model, broken, f"the image {broken} cannot be decoded: not an image in one of the formats"),
        (settings.out, image, "does not describe a model of vl-dermnet"),
        (tmp_path, image, f"{tmp_path} is not a model folder: it holds no config.json"),
    ):
        with pytest.raises(UserError) as raised:
            predict(folder, asked)
        assert message in str(raised.value)
    (model / "fusion.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"the model folder .* is damaged: .*\n  fix: copy or train it again"):
        predict(model, image)


def test_an_experiment_that_was_killed_goes_on_where_it_stopped(config, capsys):
    settings = config(models=("image_only", "concat"), n_seeds=2)
    whole = run(settings)
    kept = {name: predictions(settings, name) for name in whole.trained}
    (settings.out / "predictions" / "concat-official-1.parquet").unlink()  # its model folder was written before
    (settings.out / "results.json").unlink()
    resumed = run(settings)
    assert resumed.trained == ("concat-official-1",)
    assert len(resumed.skipped) == 3
    assert "3 of 4 runs are finished already" in capsys.readouterr().err
    assert all(predictions(settings, name).equals(kept[name]) for name in kept)
    assert run(settings).trained == ()


def test_an_experiment_may_grow_but_not_change(config):
    run(config())
    grown = run(config(models=("attention_pooling", "concat"), n_seeds=2))
    assert grown.skipped == ("attention_pooling-official-0",)
    with pytest.raises(UserError) as raised:
        run(config(lr=0.5))
    assert str(raised.value) == (
        f"{config().out} holds an experiment with another lr: there 0.001, now 0.5\n"
        "  fix: choose another --out, or delete the folder to train everything again"
    )
    for name, value in (("weight_decay", 0.2), ("warmup_fraction", 0.3)):
        with pytest.raises(UserError, match=f"holds an experiment with another {name}: there 0"):
            run(config(**{name: value}))


def test_a_dataset_that_changed_under_an_experiment_is_noticed(config, dataset, photographs, make_run):
    run(config())
    build(BuildConfig(images=photographs, runs=(make_run(),), out=dataset, with_images=True))
    with pytest.raises(UserError) as raised:
        run(config())
    assert str(raised.value) == (
        f"{config().out} was begun on other rows: the dataset {dataset} has changed since\n"
        "  fix: choose another --out, or put the former dataset back"
    )


def test_an_encoder_that_changed_under_its_name_is_noticed(config, backbones, tmp_path):
    copied = shutil.copytree(backbones / "vit", tmp_path / "vit")
    settings = config(image_backbone=str(copied), models=("image_only",))
    run(settings)
    weights = read_json(settings.out / "config.json")["backbones"]["image"]["weights"]
    assert read_json(settings.out / "models" / "image_only-official-0" / "config.json")["image"]["weights"] == weights
    assert run(settings.model_copy(update={"n_seeds": 2})).trained == ("image_only-official-1",)
    other = load_image_backbone(str(copied)).model
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    other.save_pretrained(copied)
    with pytest.raises(UserError) as raised:
        run(settings.model_copy(update={"n_seeds": 3}))
    message, fix = str(raised.value).split("\n")
    assert message.startswith(
        f"{settings.out} was begun with other weights of the image backbone vit: {weights} there, now "
    )
    assert fix == "  fix: put the former ones back, or choose another --out"
    assert read_json(settings.out / "config.json")["backbones"]["image"]["weights"] == weights


def test_a_revision_may_be_named_later_where_the_weights_are_known(config):
    settings = config(models=("image_only",))
    run(settings)
    named = settings.model_copy(update={"image_revision": "main", "n_seeds": 2})  # of a folder it says nothing
    assert run(named).trained == ("image_only-official-1",)
    kept = read_json(settings.out / "config.json")
    assert kept["image_revision"] == "main"
    write_json(settings.out / "config.json", {name: value for name, value in kept.items() if name != "backbones"})
    with pytest.raises(UserError, match="holds an experiment with another image_revision: there 'main', now 'v2'"):
        run(settings.model_copy(update={"image_revision": "v2", "n_seeds": 2}))


def test_a_folder_with_something_else_in_it_is_not_written_to(config):
    (config().out).mkdir()
    (config().out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no experiment"):
        run(config())


def test_a_dataset_without_images_trains_on_text_alone_and_says_what_else_needs(config, dataset, photographs, make_run):
    described = make_run(text=lambda row: WORDS.get(row.label, "flat"))
    build(BuildConfig(images=photographs, runs=(described,), out=dataset))
    run(config(models=("text_only",), lr=0.05, epochs=20))
    score = experiment_table(config().out).rows[0].ours["official"]
    assert score.accuracy_mean > 80
    with pytest.raises(UserError) as raised:
        run(config(out=config().out.parent / "other"))
    assert str(raised.value) == (
        f"the dataset {dataset} holds no images, and a model that sees them is to be trained\n"
        "  fix: --images FOLDER (the photographs that were described), or --model text_only"
    )


def test_an_unknown_model_is_named_with_those_that_exist(config):
    with pytest.raises(
        UserError, match="unknown model 'concatenate'; choose one of: attention_pooling, bottleneck_tokens, concat"
    ):
        run(config(models=("concatenate",)))


def test_frozen_models_share_their_backbones_on_disk(config):
    settings = config(n_seeds=2)
    run(settings)
    files = list(settings.out.glob("*/*/image_backbone/model.safetensors"))
    files += list(settings.out.glob("backbones/image_backbone-*/model.safetensors"))
    assert len(files) == 3
    assert len({file.stat().st_ino for file in files}) == 1


def test_an_upside_down_photograph_is_turned_before_it_is_judged(config, tmp_path):
    settings = config(models=("image_only",))
    run(settings)
    upright = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3
    for name, image, options in (("a.png", upright, {}), ("b.png", upright.rotate(180), {"exif": exif})):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        (tmp_path / name).write_bytes(buffer.getvalue())
    predictor = Predictor(settings.out / "models" / "image_only-official-0")
    first, second = (predictor.predict(tmp_path / name).probabilities for name in ("a.png", "b.png"))
    assert first == pytest.approx(second)


def test_a_device_that_is_not_there_is_a_clear_error(config):
    with pytest.raises(UserError, match="unknown device 'tpu'; choose one of: auto, cpu"):
        run(config(device="tpu"))


def test_a_run_that_was_interrupted_goes_on_from_its_checkpoint_and_leaves_none(config, monkeypatch):
    settings = config(is_frozen=False, models=("concat",))
    whole = run(config(is_frozen=False, models=("concat",), out=settings.out.parent / "whole"))
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    checkpoint = settings.out / "checkpoints" / "concat-official-0" / "checkpoint.safetensors"
    assert checkpoint.is_file()
    with pytest.raises(UserError, match="holds an experiment with another lr: there"):
        run(config(is_frozen=False, models=("concat",), lr=0.5))
    monkeypatch.undo()
    run(settings)
    name = "concat-official-0"
    assert predictions(settings, name).equals(pq.read_table(whole.folder / "predictions" / f"{name}.parquet"))
    assert not checkpoint.parent.exists()


def stop_after(n_epochs, monkeypatch):
    """Ctrl-C in the middle of training, as a terminal sends it."""
    from rich.progress import Progress

    advance = Progress.advance

    def interrupted(self, task, n):
        nonlocal n_epochs
        advance(self, task, n)
        is_training = any(each.description == "train" for each in self.tasks)
        n_epochs -= is_training
        if is_training and not n_epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupted)


def test_adapters_are_part_of_the_saved_weights(config, backbones):
    """A folder made with --lora is as any other: plain checkpoints, which answer as in the experiment."""
    settings = config(is_frozen=False, lora=2, image_lr=0.05, text_lr=0.05, patience=1)
    run(settings)
    folder = settings.out / "models" / "attention_pooling-official-0"
    model, _ = load_fusion_model(folder)
    from transformers import ViTModel

    before = ViTModel.from_pretrained(backbones / "vit").state_dict()
    after = model.image.model.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["layers.0.mlp.fc1.weight"], after["layers.0.mlp.fc1.weight"])
    assert not list(folder.rglob("adapter*"))


def test_an_unknown_remedy_for_imbalance_is_told_before_anything_is_loaded(config):
    with pytest.raises(UserError, match="unknown imbalance 'focal'; choose one of: balanced_sampler"):
        run(config(imbalance="focal", dataset="/nowhere"))
