"""train-features: heads on features from files: rows by key, validation by groups, the same matrix and table."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from builders.errors import UserError
from builders.files import read_json
from train.cli import app
from train.config import TrainConfig
from train.data import load_examples, split_of
from train.experiment import run
from train.given import given_inputs
from train.loop import fit
from train.model import FusionModel
from train.predict import Predictor
from train.table import experiment_table

N = 120


@pytest.fixture
def files(tmp_path):
    """A list of 120 files in three classes, two to a group, and two arrays of which the first tells the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) // 2 % 3
    paths = [f"{'test' if n // 2 % 4 == 0 else 'train'}/{'abc'[label]}/{n:03}.jpg" for n, label in enumerate(labels)]
    lines = [f"{path},{path.split('/')[0]},{path.split('/')[1]},g{n // 2}" for n, path in enumerate(paths)]
    (tmp_path / "list.csv").write_text("path,split,label,group\n" + "\n".join(lines) + "\n")
    telling = np.eye(3, dtype=np.float32)[labels] + 0.1 * rng.standard_normal((N, 3), dtype=np.float32)
    noise = rng.standard_normal((N, 4), dtype=np.float32)
    order = rng.permutation(N)  # keys decide, not places
    np.savez(tmp_path / "one.npz", path=np.array(paths)[order], telling=telling[order])
    np.savez(tmp_path / "two.npz", path=np.array(paths), noise=noise)
    return tmp_path


@pytest.fixture
def config(files):
    def make(**changes):
        settings = {
            "dataset": str(files / "list.csv"),
            "features": (files / "one.npz", files / "two.npz"),
            "image_features": ("telling",),
            "text_features": ("noise",),
            "out": files / "experiment",
            "models": ("image_only", "text_only", "concat"),
            "n_seeds": 1,
            "is_frozen": True,
            "epochs": 60,
            "device": "cpu",
        }
        return TrainConfig(**{**settings, **changes})

    return make


def test_rows_without_features_are_told_and_counted(files, config, capsys):
    names = np.load(files / "two.npz")
    np.savez(files / "two.npz", path=names["path"][:-3], noise=names["noise"][:-3])
    folder = run(config(models=("image_only", "concat"), epochs=1)).folder
    assert "3 rows of the list have no features and are left out" in " ".join(capsys.readouterr().err.split())
    assert read_json(folder / "results.json")["n_without_features"] == 3


def test_features_that_cannot_be_told_apart_or_do_not_fit_are_refused(files, config):
    two = dict(np.load(files / "two.npz"))
    for changed, message in (
        ({"telling": two["noise"]}, "'telling' is in .*/one.npz and in .*/two.npz: which one"),
        ({"path": np.repeat(two["path"][:60], 2)}, "two.npz names a path twice: "),
        ({"noise": two["noise"][1:]}, r"'noise' in .*two.npz is of shape \(119, 4\); features of its 120 files are of"),
        ({"noise": np.concatenate([two["noise"][:1], two["noise"]])}, r"is of shape \(121, 4\)"),
        ({"noise": two["noise"][:, 0]}, r"is of shape \(120,\); features of its 120 files are of shape \(120, width\)"),
    ):
        np.savez(files / "two.npz", **{**two, **changed})
        with pytest.raises(UserError, match=message):
            load_examples(config())
    np.savez(files / "two.npz", **two, sha256=np.repeat(two["path"], 1))
    load_examples(config())


def test_the_array_that_tells_the_class_is_learned_from_and_the_other_is_not(config):
    folder = run(config(hidden_dims=(16,))).folder
    scores = {row.model: row.ours["official"].accuracy_mean for row in experiment_table(folder).rows if row.ours}
    assert scores["image_only"] > 85
    assert scores["text_only"] < 70
    predictions = pq.read_table(folder / "predictions" / "concat-official-0.parquet")
    assert len(predictions) == N // 4
    with pytest.raises(UserError, match="is a head on features from a file"):
        Predictor(folder / "models" / "concat-official-0")
    card = (folder / "models" / "concat-official-0" / "README.md").read_text(encoding="utf-8")
    assert "A head on features from a file (telling, noise): it has no encoder" in card
    assert "predict" not in card
    settings = read_json(folder / "models" / "concat-official-0" / "config.json")["training"]["config"]
    assert settings["features"] == ["one.npz", "two.npz"]  # a folder that is passed on tells no place


def test_what_the_features_are_of_is_told_on_the_command_line_also_later_and_otherwise(files):
    words = ["train-features", str(files / "list.csv"), str(files / "one.npz"), str(files / "two.npz")]
    words += ["--first", "telling", "--second", "noise", "--out", str(files / "experiment"), "--json"]
    words += ["--model", "concat", "--seeds", "1", "--protocol", "official", "--epochs", "1"]
    tables = []
    mistaken, right = ["a clas", "noise only"], ["the class and a little noise", "noise alone"]
    for told in ([], *(["--first-of", first, "--second-of", second] for first, second in (mistaken, right))):
        ended = CliRunner().invoke(app, [*words, *told])
        assert ended.exit_code == 0, ended.output
        tables.append(json.loads(ended.stdout))
    titles = [[row["title"] for row in table["rows"][:2]] for table in tables]
    assert titles == [
        ["noise (text only)", "telling (image only)"],
        ["noise only (text only)", "a clas (image only)"],
        ["noise alone (text only)", "the class and a little noise (image only)"],
    ]
    assert "(noise alone)" in tables[2]["notes"][-1]
    assert "clinical use" in tables[2]["notes"][-1]
    assert [[row["ours"] for row in table["rows"]] for table in tables[1:]] == 2 * [
        [row["ours"] for row in tables[0]["rows"]]
    ]
    card = (files / "experiment" / "models" / "concat-official-0" / "README.md").read_text(encoding="utf-8")
    assert "No texts were read: text stands for features from a file (noise)" in card


def test_features_belong_to_the_rows_that_their_key_names(config, files):
    examples = load_examples(config())
    _, _, inputs = given_inputs(config(), torch.device("cpu"))
    assert (inputs.image[1].argmax(axis=1) == examples.labels).all()


def test_no_group_is_cut_by_validation(config):
    examples = load_examples(config())
    split = split_of(examples, "official")
    groups = [{examples.groups[row] for row in rows} for rows in (split.train, split.validation)]
    assert split.validation.size
    assert not groups[0] & groups[1]


def test_rows_that_share_a_text_are_no_copies_and_rows_that_share_an_image_are(config, files):
    """As sentences of age, sex and site do, also where the text is all that is given."""
    paths = [line.split(",")[0] for line in (files / "list.csv").read_text().splitlines()[1:]]
    np.savez(files / "two.npz", path=np.array(paths), noise=np.ones((N, 4), dtype=np.float32))
    for image in ((), ("telling",)):
        examples = load_examples(config(image_features=image, models=("text_only",)))
        assert len(set(examples.groups)) == N // 2
        assert set(examples.splits["clean"]) <= {"train", "validation", "test"}
    swapped = load_examples(config(image_features=("noise",), text_features=("telling",)))
    assert len(set(swapped.groups)) == 1
    fingerprints = {load_examples(config(text_features=name)).fingerprint for name in ((), ("noise",))}
    assert len(fingerprints) == 2  # what a text says still belongs to the data


@pytest.mark.parametrize("wrong", [("--protocol", "offical"), ("--lr", "0")])
def test_a_wrong_option_of_features_is_named(files, wrong):
    words = ["train-features", str(files / "list.csv"), str(files / "one.npz"), "--first", "telling"]
    ended = CliRunner().invoke(app, [*words, "--out", str(files / "experiment"), *wrong])
    assert isinstance(ended.exception, UserError)
    assert f"{wrong[0].removeprefix('--')} is " in str(ended.exception)
    assert wrong[1].removeprefix("0") in str(ended.exception)
    assert "vl-dermnet train-features --help" in str(ended.exception)


def test_rows_without_features_are_left_out(config, files):
    archive = dict(np.load(files / "two.npz"))
    np.savez(files / "two.npz", path=archive["path"][5:], noise=archive["noise"][5:])
    assert len(load_examples(config()).image_ids) == N - 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_features": ("nothing",)}, "unknown array of features 'nothing'; choose one of: noise, telling"),
        ({"dataset": "nowhere.csv"}, "no list at nowhere.csv"),
        ({"text_features": ()}, "no --second features are given to read"),
    ],
)
def test_what_cannot_be_is_a_clear_error(config, changes, message):
    with pytest.raises(UserError, match=message):
        run(config(**changes))


def test_a_refit_tests_a_model_of_train_and_validation_and_leaves_what_validation_said(config, files):
    plain = run(config(models=("concat",), protocol="official")).folder
    refit = run(config(models=("concat",), protocol="official", is_refit=True, out=files / "refit")).folder
    name = "concat-official-0.parquet"
    before, after = (pq.read_table(folder / "validation" / name) for folder in (plain, refit))
    assert before.equals(after)  # the temperature is of a model that has not seen these rows
    before, after = (pq.read_table(folder / "predictions" / name) for folder in (plain, refit))
    assert before["image_id"].equals(after["image_id"])
    assert not before["logits"].equals(after["logits"])
    scaling = [
        load_file(folder / "models" / "concat-official-0" / "fusion.safetensors")["scaling.image_pooled.mean"]
        for folder in (plain, refit)
    ]
    examples = load_examples(config())
    split = split_of(examples, "official")
    _, _, inputs = given_inputs(config(), torch.device("cpu"))
    for rows, mean in zip((split.train, np.concatenate([split.train, split.validation])), scaling, strict=True):
        np.testing.assert_allclose(mean, inputs.image[1][rows].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_a_fit_that_does_not_choose_has_the_weights_at_the_end_whatever_its_patience(config):
    settings = config(epochs=6, patience=1)
    examples = load_examples(settings)
    split = split_of(examples, "official")
    image, text, inputs = given_inputs(settings, torch.device("cpu"))
    ends: list[dict[str, torch.Tensor]] = []
    for chooses, patience in ((True, None), (False, 1)):
        torch.manual_seed(0)
        model = FusionModel("concat", examples.class_names, image, text)

        def remember(_, model=model):
            ends.append({name: weight.clone() for name, weight in model.fusion.state_dict().items()})

        options = settings.model_copy(update={"patience": patience})
        fitted = fit(model, inputs, examples.labels, split, options, 0, remember, chooses=chooses)
        assert len(fitted.history) == 6
        if not chooses:
            assert fitted.best.epoch == 6
            assert all(torch.equal(weight, ends[5][name]) for name, weight in model.fusion.state_dict().items())
    assert len(ends) == 12


def test_the_papers_rows_are_reported_though_features_have_no_patches_and_words_to_look_at(config):
    folder = run(config(models=(), protocol="official", n_seeds=1)).folder
    assert not (folder / "attention").exists()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Attention pooling" in page
    assert "no finished run pools by attention (attention_pooling, learned_query_pooling) what encoders see" in page


def test_controls_are_rows_of_heads_on_features_too(config):
    settings = config(models=("concat",), protocol="official", controls=("all",), control_models=("concat",), n_seeds=1)
    assert set(settings.controls) & {"constant_text", "masked_text", "second_image"} == set()
    rows = {file.stem for file in (run(settings).folder / "predictions").iterdir()}
    expected = {f"concat+{name}-official-0" for name in settings.controls}
    assert rows == {"concat-official-0", *expected}
    assert "concat+emap-official-0" in rows


@pytest.mark.parametrize("control", ["constant_text", "masked_text", "second_image"])
def test_a_control_that_needs_an_encoder_is_refused_for_features(config, control):
    with pytest.raises(UserError, match=f"the control {control} asks an encoder"):
        run(config(controls=(control,), control_models=("concat",), second_image_backbone="tiny-internvl"))
