"""report.html: what is absent is told, foreign text is harmless, nothing is fetched, and it stays small."""

import hashlib
import json
import re
import shutil
from html import unescape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.files import read_json, write_json, write_table
from tests.finished_experiment import Page, fake_examples, write_attention, write_experiment, write_run
from train.origin import read_origin
from train.report.write import write_report


@pytest.fixture
def experiment(tmp_path, photographs, make_run):
    return write_experiment(tmp_path, photographs, make_run)


@pytest.fixture
def page(experiment):
    return Page(write_report(experiment))


def test_nothing_is_fetched_and_foreign_text_stays_text(page, experiment):
    text = (experiment / "report.html").read_text(encoding="utf-8")
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "iframe", "object", "form", "link"} & set(page.tags)
    assert "\u202e" not in text
    assert "\\u202egnol" in text
    assert "&lt;script&gt;" in text
    assert "a|b &lt;script&gt;" in text
    assert str(experiment.parent) not in text, "a machine's path is on the page"


def test_every_surface_says_what_the_texts_are_and_what_it_is_not_for(experiment):
    text = unescape(write_report(experiment).read_text(encoding="utf-8"))
    assert text.count(read_origin(experiment).texts) >= 3
    assert text.count("clinical use") >= 3


def test_features_that_were_supplied_are_not_called_machine_written(experiment):
    config = read_json(experiment / "config.json")
    given = {"features": ["a.npz"], "image_features": ["pooled"], "text_features": ["age", "sex"]}
    write_json(experiment / "config.json", config | given | {"text_features_of": "age and sex"})
    text = unescape(write_report(experiment).read_text(encoding="utf-8"))
    assert "supplied with the data; who wrote what they are of is not known here" in text
    assert "achine-written" not in text
    assert re.search(r"<dt>Text features</dt>\s*<dd>(<bdi>)?age and sex", text)


def test_photographs_are_shown_where_they_are_and_only_with_their_own_bytes(experiment, photographs, tmp_path):
    n_with = write_report(experiment).read_text().count("<img ")
    moved = tmp_path / "elsewhere"
    photographs.rename(moved)
    said = []
    text = write_report(experiment, say=said.append).read_text()
    assert said == [
        "report: the folder of photographs that was trained on is not here: vl-dermnet report EXP --images ROOT"
    ]
    assert said[0].removeprefix("report: ") in text
    assert text.count("no photograph here") > 0
    assert write_report(experiment, str(moved)).read_text().count("<img ") == n_with
    for file in moved.rglob("*.jpg"):
        file.write_bytes(b"another photograph")
    assert "photographs are not there or have other bytes" in write_report(experiment, str(moved)).read_text()


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("models", "no model folder holds its history"),
        ("validation", "no run holds both its test and its validation logits"),
        ("missing", "no run reads both modalities, or missing/*.parquet is not there"),
        ("attention", "no finished run pools by attention"),
        ("deletion", "The deletion test is left out"),
        ("distances", "the same `vl-dermnet train` command again writes those that are missing"),
        ("config.json", "unknown: config.json is not there"),
    ],
)
def test_what_is_not_there_is_left_out_with_a_reason(experiment, gone, reason):
    path = experiment / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    out = write_report(experiment)
    assert reason in out.read_text(encoding="utf-8")
    assert Page(out).tables


def test_distances_say_in_which_features_they_were_measured(experiment):
    assert "Measured in pooled features of the frozen image backbone." in write_report(experiment).read_text()
    for file in (experiment / "distances").glob("*.parquet"):
        table = pq.read_table(file)
        write_table(file, table.replace_schema_metadata({b"features_of": b"features of <b>, as they were"}))
    text = write_report(experiment).read_text()
    assert "Measured in features of &lt;b&gt;, as they were." in text
    assert "frozen image backbone" not in text


def test_a_dataset_that_is_gone_or_damaged_files_do_not_stop_it(experiment):
    shutil.rmtree(experiment.parent / "dataset")
    (experiment / "validation" / "concat-clean-0.parquet").write_bytes(b"cut")
    (experiment / "models" / "concat-clean-1" / "config.json").write_text("{")
    text = write_report(experiment).read_text(encoding="utf-8")
    assert "the dataset dataset cannot be opened from here" in text
    assert "validation/concat-clean-0.parquet cannot be read" in text
    assert str(experiment.parent) not in text


def test_one_seed_one_protocol_one_text_model_is_a_report_too(tmp_path):
    rng = np.random.default_rng(0)
    examples = fake_examples(["a", "b"], [0, 1, 0], ["x", "y", "z"], ["", "", ""])
    write_run(tmp_path / "exp", "text_only-official-0", examples, rng, both=False)
    text = write_report(tmp_path / "exp").read_text(encoding="utf-8")
    for reason in (
        "there is a single seed",
        "only official was trained",
        "no finished run pools by attention",
        "no run reads both modalities",
    ):
        assert reason in text


def test_predictions_without_logits_give_the_table_and_say_what_they_lack(tmp_path):
    (tmp_path / "predictions").mkdir()
    ids = ["0", "1", "2"]
    rows = pa.table({"image_id": ids, "group": ids, "label": ["a", "b", "a"], "predicted": ["a", "b", "b"]})
    pq.write_table(rows, tmp_path / "predictions" / "concat-official-0.parquet")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "nothing tells the order of its logits" in text
    assert "66.67" in text


def test_an_experiment_without_a_finished_run_has_no_report(tmp_path):
    with pytest.raises(UserError, match="holds no predictions"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_controls_have_rows_but_are_never_chosen(experiment):
    for seed in (0, 1):
        for kind in ("predictions", "validation"):
            table = pq.read_table(experiment / kind / f"concat-official-{seed}.parquet")
            position = {name: i for i, name in enumerate(json.loads(table.schema.metadata[b"class_names"]))}
            logits = [[9.0 * (position[label] == i) for i in range(3)] for label in table["label"].to_pylist()]
            columns = {**table.to_pydict(), "predicted": table["label"].to_pylist(), "logits": logits}
            perfect = pa.table(columns).replace_schema_metadata(table.schema.metadata)
            write_table(experiment / kind / f"concat+shuffled-official-{seed}.parquet", perfect)
    page = Page(write_report(experiment))
    titles = [row[0] for row in page.tables["Before and after temperature scaling, on test"][0]]
    assert any("shuffled" in title for title in titles)
    assert not any("shuffled" in caption for caption in page.tables)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_frozen": True}, "frozen backbones, heads trained"),
        ({}, "backbones fine-tuned"),
        ({"image_layers": 2, "text_layers": 0}, "backbones fine-tuned: image the last 2 blocks, text none"),
        ({"image_layers": 1}, "backbones fine-tuned: image the last 1 block, text all blocks"),
        ({"image_layers": 0, "text_layers": 0}, "heads trained, backbones as they were"),
        ({"lora": 8}, "adapters of rank 8 trained on the backbones"),
    ],
)
@pytest.mark.parametrize("is_refit", [False, True])
def test_what_was_trained_is_told_as_it_was(experiment, changes, said, is_refit):
    config = read_json(experiment / "config.json") | {"is_frozen": False, "is_refit": is_refit, **changes}
    write_json(experiment / "config.json", config)
    text = " ".join(unescape(write_report(experiment).read_text(encoding="utf-8")).split())
    again = ", then again on train and validation together for the test" if is_refit else ""
    assert re.search(rf"<dt>Training</dt><dd>(<bdi>)?{said}{again}; ", text)
    assert ("What was tested is another fit" in text) == is_refit


def test_controls_are_counted_beside_the_runs_that_were_asked_for(experiment):
    config = read_json(experiment / "config.json")
    write_json(experiment / "config.json", config | {"models": ["concat"], "n_seeds": 2, "protocol": "official"})
    before = len(list((experiment / "predictions").glob("*.parquet")))
    shutil.copy(
        experiment / "predictions" / "concat-official-0.parquet",
        experiment / "predictions" / "concat+empty_text-official-0.parquet",
    )
    text = " ".join(unescape(write_report(experiment).read_text(encoding="utf-8")).split())
    assert f"{before} of 2 that were asked for last, and 1 of controls" in text


def test_the_same_folder_gives_the_same_bytes(experiment):
    first = hashlib.sha256(write_report(experiment).read_bytes()).hexdigest()
    assert hashlib.sha256(write_report(experiment).read_bytes()).hexdigest() == first


def test_where_the_place_of_patches_is_not_known_the_page_says_so(tmp_path):
    rng = np.random.default_rng(0)
    examples = fake_examples(["a", "b"], rng.integers(0, 2, 40), [f"{i:016x}" for i in range(40)], ["two words"] * 40)
    name = "attention_pooling-official-0"
    write_run(tmp_path / "exp", name, examples, rng)
    write_attention(tmp_path / "exp", name, examples, rng)
    path = tmp_path / "exp" / "attention" / f"{name}.parquet"
    table = pq.read_table(path)
    rows = [{**row, "patch_rows": 0, "patch_columns": 0} for row in table.to_pylist()]
    write_table(path, pa.Table.from_pylist(rows, table.schema))
    page = write_report(tmp_path / "exp").read_text(encoding="utf-8")
    assert "no place of the patches is known for this backbone" in page
    assert "Heaviest words: <bdi>" in page


def test_thousands_of_test_images_and_many_classes_stay_a_small_page(tmp_path):
    rng = np.random.default_rng(0)
    n, names = 4000, [f"class number {i} of many" for i in range(60)]
    text = "word " * 400
    examples = fake_examples(names, rng.integers(0, 60, n), [f"{i:016x}" for i in range(n)], [text] * n)
    write_run(tmp_path / "exp", "attention_pooling-official-0", examples, rng)
    sample = fake_examples(names, examples.labels[:128], examples.image_ids[:128], [text] * 128)
    write_attention(tmp_path / "exp", "attention_pooling-official-0", sample, rng)
    out = write_report(tmp_path / "exp")
    assert out.stat().st_size < 10_000_000
    assert "20 classes with fewer mistakes are not drawn" in out.read_text(encoding="utf-8")
