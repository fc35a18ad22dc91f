"""train/heads_first.py: heads learn alone on what encoders say, then all go on; no test row, no text of another run."""

import copy

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from builders.errors import UserError
from builders.files import read_json
from train import loop, mapped, one_run
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.controls import CONTROLS
from train.controls.setting import OtherText
from train.experiment import run
from train.fusion import FUSIONS
from train.heads_first import features_once, then_all, train_heads_first
from train.inputs import LiveInputs
from train.model import FusionModel

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(SHAPES["tiny"], 60)
USED = np.union1d(SPLIT.train, SPLIT.validation)


class Watched(LiveInputs):
    """Live inputs that note which rows they are asked for, and whether augmented."""

    def __init__(self):
        super().__init__(PIXELS, TEXTS, CPU, is_augmented=True)
        self.asked, self.orders = [], set()

    def features(self, model, rows, order=None):
        self.asked += rows.tolist()
        self.orders.add(order)
        return super().features(model, rows, order)


def config(**options):
    return TrainConfig(dataset="x", out="x", **{"head_epochs": 4, "batch_size": 16, "max_text_tokens": 32, **options})


def model_of(name):
    torch.manual_seed(0)
    return FusionModel(name, CLASS_NAMES, *random_backbones(SHAPES["tiny"]))


@pytest.mark.parametrize("name", ["attention_pooling", "concat", "image_only", "text_only", "cross_attention"])
def test_what_is_kept_is_what_the_encoders_say(name, tmp_path):
    model, inputs = model_of(name), Watched()
    kept = features_once(model, inputs, USED, len(LABELS), config(), tmp_path / "kept")
    assert inputs.asked == USED.tolist()  # each row once, and no test row
    assert inputs.orders == {None}
    rows = np.random.default_rng(0).permutation(USED)[:13]
    found, expected = (each.features(model, rows) for each in (kept, inputs))
    for part in ("image_tokens", "image_pooled", "text_tokens", "text_pooled", "text_mask"):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part), rtol=1e-4, atol=1e-5, msg=part)
    assert (tmp_path / "kept" / "image.npy").is_file() == (model.uses_tokens and model.image is not None)


@pytest.mark.parametrize("name", ["attention_pooling", "concat"])
def test_heads_alone_learn_and_encoders_stay_as_they_are(name, tmp_path):
    model, inputs, said = model_of(name), Watched(), []
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_heads_first(model, inputs, LABELS, SPLIT, config(), 0, tmp_path, tell=said.append)
    after = model.state_dict()
    changed = {key.partition(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"fusion", "scaling"}
    assert set(inputs.asked).isdisjoint(SPLIT.test.tolist())
    assert list(tmp_path.iterdir()) == []  # what was kept is gone
    assert len(said) == 1
    assert said[0].startswith("heads first, on frozen encoders: validation macro-F1 ")
    assert said[0].endswith(" of 4")

    again = model_of(name)
    train_heads_first(again, Watched(), LABELS, SPLIT, config(), 0, tmp_path)
    assert [key for key, value in again.state_dict().items() if not torch.equal(value, after[key])] == []


def test_large_tokens_are_kept_in_half_precision_and_what_it_cannot_hold_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "_FLOAT32_BYTES", 1000)
    model, inputs = model_of("attention_pooling"), Watched()
    kept = features_once(model, inputs, USED, len(LABELS), config(), tmp_path)
    assert kept.image[0].dtype == kept.text[0].dtype == np.float16
    assert kept.image[1].dtype == np.float32
    found, expected = (each.features(model, USED[:5]).image_tokens for each in (kept, inputs))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        model.image.model.layernorm.weight.mul_(1e6)
    with pytest.raises(UserError) as raised:
        features_once(model, inputs, USED, len(LABELS), config(), tmp_path)
    assert str(raised.value) == "a backbone gave features that float16 cannot hold\n  fix: leave --head-epochs out"


def test_heads_go_on_at_the_greatest_rate_of_what_is_trained_beside_them():
    both = config(lr=1e-3, image_lr=1e-4, text_lr=3e-4)
    frozen_text = both.model_copy(update={"text_layers": 0})
    nothing = both.model_copy(update={"text_layers": 0, "image_layers": 0})
    rates = [then_all(model_of("concat"), each).lr for each in (both, frozen_text, nothing)]
    assert rates == [3e-4, 1e-4, 1e-3]
    assert then_all(model_of("image_only"), both).lr == 1e-4
    assert then_all(model_of("text_only"), frozen_text).lr == 1e-3


def test_frozen_encoders_need_no_head_start():
    with pytest.raises(UserError) as raised:
        config(is_frozen=True)
    assert str(raised.value) == (
        "--frozen trains no backbone, and --head-epochs says how to train one\n  fix: leave one out"
    )


def fine_tuned(experiment_config, **options):
    return experiment_config(
        **{"is_frozen": False, "models": ("concat",), "head_epochs": 2, "image_layers": 1, "text_layers": 0, **options}
    )


@pytest.mark.parametrize(("n_validations", "is_begun"), [(2, False), (3, False), (4, True)])
def test_an_experiment_stopped_anywhere_goes_on_to_the_same_bits(
    experiment_config, monkeypatch, capsys, n_validations, is_begun
):
    """Two epochs of the heads, three of all: stopped in the first it begins again, in the second not."""
    settings = fine_tuned(experiment_config)
    whole = run(fine_tuned(experiment_config, out=settings.out.parent / "whole"))
    n_calls, validate = 0, loop._validate

    def stopping(*arguments):
        nonlocal n_calls
        n_calls += 1
        if n_calls == n_validations:
            raise KeyboardInterrupt
        return validate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_validate", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    checkpoint = settings.out / "checkpoints" / "concat-official-0" / "checkpoint.safetensors"
    assert checkpoint.is_file() == is_begun
    capsys.readouterr()
    run(settings)
    assert capsys.readouterr().err.count("heads first") == (not is_begun)
    name = "predictions/concat-official-0.parquet"
    assert pq.read_table(settings.out / name).equals(pq.read_table(whole.folder / name))
    assert not checkpoint.parent.exists()
    report = " ".join((settings.out / "report.html").read_text(encoding="utf-8").split())
    assert "after 2 epochs of the heads alone" in report


def test_a_controls_heads_learn_on_the_controls_text_and_a_second_fit_has_its_own(experiment_config, monkeypatch):
    given = []
    original = one_run.train_heads_first

    def noting(model, inputs, labels, split, *others, **named):
        given.append((type(inputs), len(split.train), others[-1]))
        return original(model, inputs, labels, split, *others, **named)

    monkeypatch.setattr(one_run, "train_heads_first", noting)
    settings = fine_tuned(
        experiment_config, epochs=1, controls=("empty_text",), control_models=("concat",), is_refit=True
    )
    run(settings)
    records = read_json(settings.out / "results.json")["runs"]
    n_train, n_both = (records["concat-official-0"][key] for key in ("n_train", "n_validation"))
    n_both += n_train
    assert given == [
        (LiveInputs, n_train, True),
        (LiveInputs, n_both, False),
        (OtherText, n_train, True),
        (OtherText, n_both, False),
    ]


def test_empty_text_stays_empty_where_it_is_kept(tmp_path):
    model = model_of("concat")
    texts = copy.copy(Watched())
    texts.texts = copy.copy(TEXTS)
    object.__setattr__(texts.texts, "mask", np.zeros_like(TEXTS.mask))
    kept = features_once(model, texts, USED, len(LABELS), config(), tmp_path)
    assert not kept.features(model, USED).text_mask.any()


@pytest.mark.slow
def test_every_fusion_and_control_has_heads_that_can_be_first(experiment_config, backbones):
    settings = fine_tuned(
        experiment_config, models=("every",), controls=("all",), epochs=1, head_epochs=1, lora=2,
        second_image_backbone=str(backbones / "vit"),
    )  # fmt: skip
    assert len(run(settings).trained) == len(FUSIONS) + len(CONTROLS) + 1
