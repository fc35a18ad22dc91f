"""What cannot reach a model: ids, paths and file names; and of the test rows, anything before the test."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from builders.errors import UserError
from builders.files import read_json
from train.controls import CONTROLS
from train.data import load_examples, split_of
from train.experiment import run
from train.fusion import FUSIONS
from train.loop import predict_logits
from train.model import FusionModel
from train.parts import load_parts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rewritten(dataset, tmp_path):
    """A function that copies the dataset and changes its rows: `change(row)` gets and gives a dict."""

    def make(name, change):
        copy = tmp_path / name
        shutil.copytree(dataset, copy)
        for shard in copy.glob("*/*.parquet"):
            rows = pq.read_table(shard)
            changed = [change(dict(row)) for row in rows.to_pylist()]
            pq.write_table(pa.Table.from_pylist(changed, rows.schema), shard)
        return copy

    return make


@pytest.fixture
def config(tmp_path, experiment_config):
    defaults = {"models": ("image_only", "concat", "attention_pooling"), "lr": 0.01}
    return lambda dataset, out, **options: experiment_config(
        **{"dataset": str(dataset), "out": tmp_path / out, **defaults, **options}
    )


def fitted(folder):
    """Everything that training left behind but the test's own answers: weights by their bytes, and what is said."""
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("models/**/*.safetensors")}
    said = {}
    for file in [*folder.glob("models/*/config.json"), *folder.glob("controls/*.json")]:
        values = read_json(file)
        for changing in ("seconds", "config", "fingerprint"):  # the last names the whole dataset, and fits nothing
            values["training"].pop(changing, None)
        said[str(file.relative_to(folder))] = values
    return files, said


def is_test(row):
    return row["split_official"] == "test"


@pytest.mark.parametrize(("is_frozen", "is_refit"), [(True, False), (False, False), (True, True)])
def test_planted_labels_and_texts_of_test_rows_change_nothing_that_is_fitted(
    config, dataset, rewritten, is_frozen, is_refit
):
    """Weights, scaling, the chosen epoch, and whatever else a model folder holds, to the byte."""

    def plant(row):
        return {**row, "label": (row["label"] + 1) % 3, "description": "raised raised flat"} if is_test(row) else row

    controls = ("shuffled_text", "shuffled_text_within_class", "masked_text")
    options = {"is_frozen": is_frozen, "is_refit": is_refit, "controls": controls, "epochs": 3 if is_frozen else 1}
    before, after = config(dataset, "before", **options), config(rewritten("planted", plant), "after", **options)
    run(before)
    run(after)
    assert fitted(before.out) == fitted(after.out)
    answers = [pq.read_table(each.out / "predictions" / "concat-official-0.parquet") for each in (before, after)]
    assert answers[0]["label"] != answers[1]["label"]
    assert answers[0]["logits"] != answers[1]["logits"], "the planted texts are read in the test"


def test_a_planted_text_in_train_would_be_seen(config, dataset, rewritten):
    """What the test above compares does change with the rows that may change it."""

    def plant(row):
        return {**row, "description": "raised"} if row["split_official"] == "train" else row

    before, after = config(dataset, "before"), config(rewritten("planted", plant), "after")
    run(before)
    run(after)
    changed = [fitted(each.out)[0]["models/concat-official-0/fusion.safetensors"] for each in (before, after)]
    assert changed[0] != changed[1]


def test_other_ids_paths_and_file_names_give_the_same_models_and_answers(config, dataset, rewritten):
    def rename(row):
        row = {**row, "image_id": f"ff{row['image_id'][:14]}", "path": f"{row['label']}/{row['label']}.jpg"}
        return {**row, "image": {**row["image"], "path": f"class {row['label']}.jpg"}}

    before, after = config(dataset, "before"), config(rewritten("renamed", rename), "after")
    run(before)
    run(after)
    assert fitted(before.out) == fitted(after.out)
    for file in (before.out / "predictions").iterdir():
        pair = [pq.read_table(each.out / "predictions" / file.name) for each in (before, after)]
        assert pair[0]["logits"] == pair[1]["logits"]
        assert pair[0]["image_id"] != pair[1]["image_id"]


def test_what_a_model_reads_of_an_image_does_not_depend_on_the_ids_order(config, dataset, rewritten):
    def exchange(row):
        return {**row, "image_id": row["image_id"][::-1], "path": row["path"][::-1]}

    read = []
    for folder in (dataset, rewritten("exchanged", exchange)):
        settings = config(folder, f"exp-{folder.name}", is_frozen=False)
        examples = load_examples(settings)
        inputs = load_parts(settings, examples, {"concat"}, torch.device("cpu"), Console(file=io.StringIO())).inputs
        rows = zip(examples.image_sha256s, examples.labels, inputs.pixels, inputs.texts.token_ids, strict=True)
        read.append(sorted((sha, int(label), pixels.tobytes(), ids.tobytes()) for sha, label, pixels, ids in rows))
        read.append(list(examples.image_sha256s))
    assert read[0] == read[2]
    assert read[1] != read[3]


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_permuting_the_test_rows_permutes_the_predictions(config, dataset, name, is_frozen):
    settings = config(dataset, "exp", is_frozen=is_frozen)
    examples = load_examples(settings)
    parts = load_parts(settings, examples, {name}, torch.device("cpu"), Console(file=io.StringIO()))
    model = FusionModel(name, examples.class_names, parts.image, parts.text)
    rows = split_of(examples, "official").test
    order = np.random.default_rng(0).permutation(len(rows))
    straight = predict_logits(model, parts.inputs, rows, 3)
    np.testing.assert_allclose(predict_logits(model, parts.inputs, rows[order], 3), straight[order], atol=1e-5)


def test_a_class_without_train_rows_is_told_and_counts_as_wrong(config, rewritten, capsys):
    def leave_out(row):
        is_left_out = row["label"] == 1 and row["split_official"] == "train"
        return {**row, "split_official": "excluded"} if is_left_out else row

    settings = config(rewritten("without", leave_out), "exp", models=("concat",))
    run(settings)
    assert ": test rows of it can only be wrong, and they count" in capsys.readouterr().err
    answers = pq.read_table(settings.out / "predictions" / "concat-official-0.parquet").to_pylist()
    assert len({row["label"] for row in answers}) == 3


def test_a_missing_image_is_named(config, rewritten):
    missing = rewritten("missing", lambda row: {**row, "image": None} if is_test(row) else row)
    with pytest.raises(UserError, match=r"the image of row \d+, image_id [0-9a-f]{16}, is missing\n  fix: build"):
        run(config(missing, "exp"))


def test_every_control_is_told_in_the_records_with_the_same_split(config, dataset):
    settings = config(dataset, "exp", controls=tuple(name for name in CONTROLS if name != "second_image"))
    run(settings)
    records = [json.loads(file.read_text())["training"] for file in (settings.out / "controls").iterdir()]
    assert {record["control"] for record in records} == {*CONTROLS} - {"second_image"}
    assert len({(record["n_train"], record["n_validation"], record["n_test"]) for record in records}) == 1
