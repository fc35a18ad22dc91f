"""train --recipe: its settings, what was given otherwise, and the assumptions, told without starting anything."""

import json

import pytest
from typer.testing import CliRunner

from builders.files import read_json
from train.cli import app
from train.config import TrainConfig
from train.recipes import RECIPES


def plan(*words):
    ended = CliRunner().invoke(app, ["train", "nowhere/at-all", "--out", "exp", "--dry-run", "--json", *words])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_setting_of_a_recipe_is_one_of_the_config(name):
    assert set(RECIPES[name].settings) <= set(TrainConfig.model_fields)
    assert RECIPES[name].assumptions


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


def test_what_is_typed_wins_and_is_recorded():
    found = plan("--recipe", "paper", "--seeds", "2", "--model", "concat", "--image-backbone", "tiny-internvl")
    assert found["settings"]["models"] == ["concat"]
    assert found["settings"]["n_seeds"] == 2
    assert found["settings"]["image_backbone"] == "tiny-internvl"
    assert sorted(found["settings"]["recipe_overrides"]) == ["image_backbone", "models", "n_seeds"]


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


def test_an_unknown_recipe_is_a_clear_error():
    ended = CliRunner().invoke(app, ["train", "nowhere", "--out", "exp", "--recipe", "pie"])
    assert "unknown recipe 'pie'; choose one of: paper" in str(ended.exception)
