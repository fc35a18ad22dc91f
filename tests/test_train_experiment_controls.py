"""train's controls, as rows of an experiment: of which model they are, how they are trained, and what EMAP needs."""

import shutil

import numpy as np
import pytest

from builders.errors import UserError
from builders.files import read_json
from tests.test_train_experiment import predictions
from train.backbones import load_image_backbone
from train.controls import CONTROLS
from train.experiment import run
from train.matrix import runs_of
from train.table import experiment_table
from train.trained import last_blocks

pytestmark = pytest.mark.usefixtures("one_thread")


def test_controls_are_rows_of_the_table_and_a_killed_matrix_goes_on(experiment_config, backbones):
    plain = {"models": ("image_only", "gmu", "concat"), "n_seeds": 2, "protocol": "both"}
    whole = run(experiment_config(**plain))
    asked = {**plain, "controls": ("all",), "second_image_backbone": str(backbones / "vit")}
    settings = experiment_config(**asked)
    assert settings.controls == (*CONTROLS, "emap")
    grown = run(settings)
    assert set(grown.skipped) == set(whole.trained)
    assert len(grown.trained) == (len(CONTROLS) + 1) * 2 * 2
    names = {f"gmu+{control}" for control in CONTROLS}
    rows = {row.model: row for row in experiment_table(settings.out).rows if "+" in row.model}
    best = [name for name in rows if name.endswith("+emap")]
    assert names | set(best) == set(rows)
    assert all(set(row.ours) == {"official", "clean"} for name, row in rows.items() if name in names)
    assert sorted(protocol for name in best for protocol in rows[name].model_minus_control) == ["clean", "official"]
    results = read_json(settings.out / "results.json")
    assert set(results["runs"]) == {*whole.trained, *grown.trained}
    for protocol in ("official", "clean"):
        validated = {
            model: np.mean(
                [results["runs"][f"{model}-{protocol}-{seed}"]["best"]["validation_macro_f1"] for seed in (0, 1)]
            )
            for model in ("gmu", "concat")
        }
        (projected,) = (name for name in best if protocol in rows[name].ours)
        assert validated[projected.removesuffix("+emap")] == max(validated.values())
    assert results["runs"][f"{best[0]}-official-0"]["n_reference"] == results["runs"]["concat-official-0"]["n_test"]
    assert not list((settings.out / "models").glob("*+*"))

    lost = ["gmu+masked_text-clean-1", f"{best[0]}-official-1"]
    kept = {name: predictions(settings, name) for name in lost}
    for name in lost:
        (settings.out / "predictions" / f"{name}.parquet").unlink()
    assert list(run(settings).trained) == lost
    assert all(predictions(settings, name).equals(kept[name]) for name in lost)


def test_controls_are_fine_tuned_as_their_model_is(experiment_config, backbones):
    settings = experiment_config(
        is_frozen=False, epochs=1, controls=("all",), second_image_backbone=str(backbones / "vit"), models=("gmu",)
    )
    assert len(run(settings).trained) == 1 + len(CONTROLS) + 1
    trained = {
        name: training["n_trained_parameters"]
        for name, training in read_json(settings.out / "results.json")["runs"].items()
        if "n_trained_parameters" in training
    }
    of_vit = trained["gmu+second_image-official-0"] - trained["gmu+random_text-official-0"]
    assert of_vit == sum(p.numel() for p in load_image_backbone(str(backbones / "vit")).parameters())


def test_a_second_image_encoder_is_trained_as_deep_as_the_first_and_not_as_the_text_encoder(
    experiment_config, backbones
):
    second = str(backbones / "vit")
    settings = experiment_config(
        is_frozen=False,
        epochs=1,
        image_layers=1,
        text_layers=0,
        controls=("second_image", "random_text"),
        second_image_backbone=second,
        models=("concat",),
    )
    run(settings)
    training = read_json(settings.out / "results.json")["runs"]
    with_it, without = (
        training[f"concat+{control}-official-0"]["n_trained_parameters"] for control in ("second_image", "random_text")
    )
    backbone = load_image_backbone(second)
    first = next(last_blocks(backbone, 1, "")[0][1].parameters())
    parameters = list(backbone.model.parameters())
    of_last_block = parameters[next(i for i, each in enumerate(parameters) if each is first) :]
    assert 0 < sum(each.numel() for each in of_last_block) == with_it - without < sum(p.numel() for p in parameters)


def test_a_control_that_cannot_be_is_a_clear_error(experiment_config):
    for options, message in (
        (
            {"controls": ("upside_down",)},
            "unknown control 'upside_down'; choose one of: constant_text, emap, empty_text",
        ),
        ({"controls": ("second_image",)}, "needs a second image encoder\n  fix: --second-image-backbone FOLDER"),
        (
            {"controls": ("empty_text",), "control_models": ("image_only",)},
            "controls are of models with image and text, and image_only has one of them\n  fix: --control-model concat",
        ),
        (
            {"controls": ("empty_text",), "models": ("image_only",)},
            "controls are of models with image and text, and none is trained\n  fix: --model attention_pooling",
        ),
        ({"controls": ("emap",), "models": ("image_only",)}, "EMAP is of the best fusion, and no model with"),
    ):
        with pytest.raises(UserError) as raised:
            run(experiment_config(**options))
        assert message in str(raised.value)
    assert "second_image" not in experiment_config(controls=("all",)).controls


@pytest.mark.parametrize(
    ("models", "named", "expected"),
    [
        (("image_only", "gating", "concat"), (), "gating"),
        (("concat", "attention_pooling"), (), "attention_pooling"),
        (("concat", "attention_pooling"), ("concat",), "concat"),
    ],
)
def test_controls_are_of_a_model_that_is_trained(experiment_config, models, named, expected):
    settings = experiment_config(models=models, controls=("empty_text",), control_models=named)
    assert [each.name for each in runs_of(settings) if each.control] == [f"{expected}+empty_text-official-0"]


def test_controls_of_a_model_that_is_not_trained_are_told(experiment_config, capsys):
    settings = experiment_config(models=("image_only",), controls=("empty_text",), control_models=("concat",), epochs=1)
    run(settings)
    said = "controls of concat are held against concat, which is not trained yet: --model concat"
    assert said in " ".join(capsys.readouterr().err.split())


def test_emap_without_its_model_says_what_to_delete(experiment_config):
    settings = experiment_config(models=("concat",))
    run(settings)
    shutil.rmtree(settings.out / "models" / "concat-official-0")
    with pytest.raises(
        UserError, match=r"EMAP needs the model .*, which was deleted\n  fix: delete .*concat-official-0"
    ):
        run(experiment_config(models=("concat",), controls=("emap",)))
