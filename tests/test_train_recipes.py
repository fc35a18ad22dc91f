"""train --recipe: its settings, what was given otherwise, and the assumptions, told without starting anything."""

import html
import json

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from builders.files import read_json
from train.checkpoint import MAY_CHANGE, MAY_COME
from train.cli import PARAMETERS, app
from train.config import TrainConfig
from train.recipes import RECIPES


def plan(*words):
    ended = CliRunner().invoke(app, ["train", "nowhere/at-all", "--out", "exp", "--dry-run", "--json", *words])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_setting_of_a_recipe_is_one_of_the_config(name):
    assert set(RECIPES[name].settings) <= set(TrainConfig.model_fields)
    explained = {setting for each in RECIPES[name].assumptions for setting in each.settings}
    assert explained == set(RECIPES[name].settings) - {"models"}  # nothing is set without a word on why


# What is not of a recipe: where data come from, how and where it is computed, rows beside the recipe's, and files in
# place of encoders. The norm at which gradients are clipped cannot be typed.
NOT_OF_A_RECIPE = {
    *MAY_CHANGE, *MAY_COME, "set_name", "clip_norm", "is_compiled", "features", "image_features", "text_features"
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_setting_that_changes_a_fit_is_outside_a_recipe(name):
    of_fit = set(TrainConfig.model_fields) - NOT_OF_A_RECIPE
    assert of_fit <= set(RECIPES[name].settings)


def test_other_ways_to_train_are_told_where_the_recipe_has_none():
    words = ["--lora", "8", "--refit", "--patience", "2", "--ema", "0.9", "--modality-dropout", "0.5"]
    found = plan("--recipe", "paper", *words, "--image-revision", "abc")
    expected = ["ema", "image_revision", "is_refit", "lora", "modality_dropout", "patience"]
    assert sorted(found["settings"]["recipe_overrides"]) == expected
    said = "\n".join(found["assumptions"])
    for name, value in (("lora", 8), ("is_refit", True), ("patience", 2), ("image_revision", "abc")):
        assert f"{name} = {value}" in said


def test_every_setting_of_a_recipe_can_be_typed():
    typed = {parameter.name for parameter in get_command(app).commands["train"].params}
    wanted = {PARAMETERS.get(setting, setting) for each in RECIPES.values() for setting in each.settings}
    assert wanted <= typed


def test_weight_decay_and_warmup_that_are_typed_win_over_a_recipe():
    found = plan("--recipe", "paper", "--weight-decay", "0.2", "--warmup", "0")
    assert (found["settings"]["weight_decay"], found["settings"]["warmup_fraction"]) == (0.2, 0.0)
    assert found["settings"]["recipe_overrides"] == ["weight_decay", "warmup_fraction"]


def test_a_hidden_layer_that_is_typed_wins_over_a_recipe():
    found = plan("--recipe", "paper", "--hidden-dim", "512", "--hidden-dim", "256")
    assert found["settings"]["hidden_dims"] == [512, 256]
    assert found["settings"]["recipe_overrides"] == ["hidden_dims"]


def test_the_papers_recipe_is_its_six_rows_with_five_seeds_and_both_protocols():
    found = plan("--recipe", "paper")
    assert found["n_runs"] == 6 * 5 * 2
    assert found["settings"]["image_backbone"] == "google/vit-base-patch16-224-in21k"
    assert (found["settings"]["recipe"], found["settings"]["recipe_overrides"]) == ("paper", [])
    assert any("Validation" in line for line in found["assumptions"])


@pytest.mark.parametrize(
    "wrong", [("--model", "foo"), ("--imbalance", "foo"), ("--device", "foo"), ("--control", "foo")]
)
def test_a_plan_refuses_what_a_run_would_refuse_at_once(wrong):
    ended = CliRunner().invoke(app, ["train", "nowhere", "--out", "exp", "--dry-run", *wrong])
    assert f"unknown {wrong[0].removeprefix('--')} 'foo'; choose one of: " in str(ended.exception)


def test_controls_are_among_the_runs_that_are_counted():
    words = ["--model", "image_only", "--model", "concat", "--seeds", "2", "--control", "empty_text"]
    assert plan(*words)["n_runs"] == 2 * 2 * 3
    assert plan(*words, "--control", "emap")["n_runs"] == 2 * 2 * 3  # nothing is trained for it
    assert plan(*words, "--control-model", "concat", "--control-model", "gmu")["n_runs"] == 2 * 2 * 4
    ended = CliRunner().invoke(app, ["train", "nowhere/at-all", "--out", "exp", "--dry-run", *words])
    assert ended.stdout.endswith("12 runs of 10 epochs each, 4 of them controls; nothing was started\n")


def test_what_is_typed_wins_and_is_recorded():
    found = plan("--recipe", "paper", "--seeds", "2", "--model", "concat", "--image-backbone", "tiny-internvl")
    assert found["settings"]["models"] == ["concat"]
    assert found["settings"]["n_seeds"] == 2
    assert found["settings"]["image_backbone"] == "tiny-internvl"
    assert sorted(found["settings"]["recipe_overrides"]) == ["image_backbone", "models", "n_seeds"]


def test_an_assumption_that_was_overridden_says_so():
    found = plan("--recipe", "paper", "--seeds", "2", "--text-backbone", "/somewhere/minilm")["assumptions"]
    assert found[0].endswith("overridden: n_seeds = 2, text_backbone = minilm.")
    assert [line.partition(":")[0] for line in found if "Not so here" in line] == ["Checkpoints", "Seeds"]
    assert plan()["assumptions"] == []


def test_a_recipe_trains_and_the_experiment_tells_it(photographs, make_run, backbones, tmp_path, private_cache):
    from builders.build import BuildConfig, build

    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    words = ["--recipe", "paper", "--seeds", "1", "--protocol", "official", "--epochs", "1", "--model", "concat"]
    words += ["--image-backbone", str(backbones / "vit"), "--text-backbone", str(backbones / "bert")]
    ended = CliRunner().invoke(app, ["train", str(tmp_path / "dataset"), "--out", str(tmp_path / "exp"), *words])
    assert ended.exit_code == 0, ended.output
    config = read_json(tmp_path / "exp" / "config.json")
    assert config["recipe"] == "paper"
    assert "epochs" in config["recipe_overrides"]
    results = read_json(tmp_path / "exp" / "results.json")
    assert len(config["assumptions"]) == 1 + len(RECIPES["paper"].assumptions)
    assert results["assumptions"] == config["assumptions"]
    assert set(config["assumptions"]) < set(results["table"]["notes"])
    assert results["described_by"]["model"]["id"] == "example/tiny-doctor"
    page = (tmp_path / "exp" / "report.html").read_text(encoding="utf-8")
    for line in config["assumptions"]:
        assert line in html.unescape(page)

    words = [word for word in words if word not in ("--recipe", "paper")]  # more runs, of the same settings
    ended = CliRunner().invoke(app, ["train", str(tmp_path / "dataset"), "--out", str(tmp_path / "exp"), *words])
    assert ended.exit_code == 0, ended.output
    assert read_json(tmp_path / "exp" / "config.json")["assumptions"] == config["assumptions"]


def test_an_unknown_recipe_is_a_clear_error():
    ended = CliRunner().invoke(app, ["train", "nowhere", "--out", "exp", "--recipe", "pie"])
    assert "unknown recipe 'pie'; choose one of: paper" in str(ended.exception)
