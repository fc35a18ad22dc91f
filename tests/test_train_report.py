"""report.html: its numbers computed again by others, what is absent told, foreign text harmless, nothing fetched."""

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import write_json, write_table
from train.calibration import fit_temperature, softmax
from train.data import Examples
from train.evaluate import PIXELS, logits_table
from train.report.explained import interval
from train.report.scores import confusion_of
from train.report.write import write_report

NASTY_TEXT = (
    '</style></p><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c & \x07 red'
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The page's tables by caption as lists of rows of text, its ids and addresses; unbalanced tags fail."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.ids, self.addresses, self.tags, self.open = {}, [], [], [], []
        self.caption, self.text = None, ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "action", "srcset") if name in found]
        assert not [name for name in found if name.startswith("on") or name == "style"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.row = []
        if tag in ("th", "td", "caption"):
            self.text = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            self.rows = self.tables.setdefault(self.text.strip(), [])
            self.rows.append([])
        if tag in ("th", "td"):
            self.row.append(self.text.strip())
        if tag == "tr":
            self.rows[-1].append(self.row)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, text):
        self.text += text


def rows_of(dataset):
    """The rows of a dataset's shards, with labels by name, in the order of their ids."""
    shards = sorted((dataset / "tiny-doctor").glob("*.parquet"))
    names = json.loads(pq.read_schema(shards[0]).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    return names, sorted(rows, key=lambda row: row["image_id"])


def fake_examples(names, labels, ids, texts):
    return Examples(
        image_ids=ids,
        image_sha256s=ids,
        labels=np.asarray(labels),
        class_names=tuple(names),
        texts=texts,
        groups=[str(i // 2) for i in range(len(ids))],
        splits={},
        read_image=None,
        n_without_text=0,
    )


def write_run(folder, name, examples, rng, both=True, attention=False):
    """The files of one finished run, with random logits."""
    n, n_classes = len(examples.image_ids), len(examples.class_names)
    rows = np.arange(n)

    def drawn(sharpness):
        logits = rng.normal(size=(n, n_classes)) * 2
        logits[rows, examples.labels] += sharpness
        return logits.astype(np.float32)

    write_table(folder / "validation" / f"{name}.parquet", logits_table(examples, rows, drawn(2.0)))
    write_table(folder / "predictions" / f"{name}.parquet", logits_table(examples, rows, drawn(1.5)))
    if both:
        tables = [
            logits_table(examples, rows, drawn(sharpness)).append_column("missing", pa.array([kind] * n))
            for kind, sharpness in (("text", 1.0), ("image", 0.2))
        ]
        write_table(folder / "missing" / f"{name}.parquet", pa.concat_tables(tables))
    if attention:
        write_attention(folder, name, examples, rng)
    history = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "validation_loss": 2.5 / epoch,
            "validation_accuracy": 0.5,
            "validation_macro_f1": 1 - 1 / epoch,
        }
        for epoch in range(1, 6)
    ]
    model, protocol, seed = name.rsplit("-", 2)
    training = {"model": model, "protocol": protocol, "seed": int(seed), "seconds": 1.5, "history": history}
    training |= {"best": history[-1], "n_train": 100, "n_validation": n}
    write_json(folder / "models" / name / "config.json", {"class_names": examples.class_names, "training": training})


def write_attention(folder, name, examples, rng):
    pixels = {"resize": "exact", "resize_px": [16, 16], "crop_px": [16, 16], "resample": 2, "rescale_factor": 1 / 255}
    pixels |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    rows, tests = [], []
    for i, text in enumerate(examples.texts):
        spans = [(found.start(), found.end()) for found in re.finditer(r"\S+", text)]
        rows.append(
            {
                "image_id": examples.image_ids[i],
                "is_sampled": True,
                "patch_rows": 4,
                "patch_columns": 4,
                "patch_weights": rng.dirichlet(np.ones(16)).tolist(),
                "class_token_weight": 0.1,
                "text": text,
                "word_starts": [start for start, _ in spans],
                "word_ends": [end for _, end in spans],
                "word_weights": rng.dirichlet(np.ones(len(spans))).tolist(),
                "n_words_read": len(spans),
                "special_token_weight": 0.0,
            }
        )
        tests += [
            {
                "image_id": examples.image_ids[i],
                "group": examples.groups[i],
                "modality": modality,
                "percent": percent,
                "before": 0.8,
                "without_top": 0.8 - percent / 100 - 0.01 * rng.random(),
                "without_random": 0.8 - percent / 400,
            }
            for modality, percents in (("image", (5, 10, 20, 40)), ("text", (5, 10, 20, 40)), ("photograph", (10, 40)))
            for percent in percents
        ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({PIXELS: json.dumps(pixels)})
    write_table(folder / "attention" / f"{name}.parquet", table)
    write_table(folder / "deletion" / f"{name}.parquet", pa.Table.from_pylist(tests))


@pytest.fixture
def experiment(tmp_path, photographs, make_run):
    """Three models, two protocols, two seeds over a real dataset of 26 photographs whose texts are nasty."""
    described = make_run(text=lambda row: NASTY_TEXT)
    dataset = tmp_path / "dataset"
    build(BuildConfig(images=photographs, runs=(described,), out=dataset, allow_partial=True))
    names, rows = rows_of(dataset)
    examples = fake_examples(
        names, [row["label"] for row in rows], [row["image_id"] for row in rows], [row["description"] for row in rows]
    )
    folder, rng = tmp_path / "exp", np.random.default_rng(0)
    for protocol in ("official", "clean"):
        for seed in (0, 1):
            write_run(folder, f"image_only-{protocol}-{seed}", examples, rng, both=False)
            write_run(folder, f"concat-{protocol}-{seed}", examples, rng)
            write_run(folder, f"attention_pooling-{protocol}-{seed}", examples, rng, attention=True)
        distances = {"image_id": examples.image_ids, "distance": rng.random(len(rows)), "nearest": examples.image_ids}
        write_table(folder / "distances" / f"{protocol}.parquet", pa.table(distances))
    config = {"dataset": str(dataset), "images": str(photographs), "set_name": None, "is_frozen": True, "epochs": 5}
    config |= {"models": ["image_only", "concat", "attention_pooling"], "n_seeds": 2, "protocol": "both", "lr": 0.001}
    config |= {"batch_size": 8, "image_backbone": str(tmp_path / "vit"), "text_backbone": "a/bert"}
    write_json(folder / "config.json", config)
    return folder


@pytest.fixture
def page(experiment):
    return Page(write_report(experiment))


def answers(experiment, kind, model, protocol):
    """Per seed: labels, predictions, logits."""
    found = []
    for file in sorted((experiment / kind).glob(f"{model}-{protocol}-*.parquet")):
        table = pq.read_table(file)
        names = json.loads(table.schema.metadata[b"class_names"])
        labels, predicted = ([names.index(x) for x in table[c].to_pylist()] for c in ("label", "predicted"))
        found.append((np.asarray(labels), np.asarray(predicted), np.stack(table["logits"].to_pylist())))
    return found


def shown(values, digits):
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def chosen(experiment, protocol):
    models = ("image_only", "concat", "attention_pooling")
    scores = {
        model: np.mean(
            [f1_score(y, p, average="macro") for y, p, _ in answers(experiment, "validation", model, protocol)]
        )
        for model in models
    }
    return max(scores, key=scores.get)


TITLES = {"image_only": "vit (image only)", "concat": "Concat", "attention_pooling": "Attention pooling"}


@pytest.mark.parametrize("number", [0, 1])
def test_calibration_is_that_of_a_loop_over_bins(page, experiment, number):
    protocol = ("official", "clean")[number]
    rows = {row[0]: row[1:] for row in page.tables["Before and after temperature scaling, on test"][number]}
    for model, title in TITLES.items():
        before, after, temperatures = [], [], []
        both = (answers(experiment, kind, model, protocol) for kind in ("validation", "predictions"))
        pairs = zip(*both, strict=True)
        for (expected, _, z), (labels, predicted, logits) in pairs:
            temperatures.append(fit_temperature(z, expected))
            for t, values in ((1.0, before), (temperatures[-1], after)):
                confidence = softmax(logits, t).max(axis=1)
                error = 0.0
                for i in range(15):
                    inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
                    if inside.any():
                        error += inside.mean() * abs(confidence[inside].mean() - (labels == predicted)[inside].mean())
                values.append(error)
        assert rows[title][:3] == [shown(temperatures, 3), shown(before, 3), shown(after, 3)]


@pytest.mark.parametrize("number", [0, 1])
def test_class_scores_are_those_of_scikit_learn(page, experiment, number):
    protocol = ("official", "clean")[number]
    model = chosen(experiment, protocol)
    tables = page.tables[f"{TITLES[model]}: scores by class"]
    table = tables[number if len(tables) > 1 else 0]
    seeds = answers(experiment, "predictions", model, protocol)
    per_seed = [precision_recall_fscore_support(y, p, labels=range(3), zero_division=0) for y, p, _ in seeds]
    for i, row in enumerate(table[1:4]):
        assert int(row[1]) == per_seed[0][3][i]
        assert row[2:5] == [shown([scores[k][i] for scores in per_seed], 3) for k in range(3)]
    assert table[4][0] == "macro average"
    assert table[4][4] == shown([np.mean(scores[2]) for scores in per_seed], 3)


def test_the_confusion_matrix_is_that_of_scikit_learn(experiment):
    from train.report.runs import read_runs

    for run in read_runs(experiment).runs:
        expected = confusion_matrix(run.test.labels, run.test.predicted, labels=range(3))
        assert (confusion_of(run.test, 3) == expected).all()


def test_missing_modalities_are_those_of_scikit_learn(page, experiment):
    rows = {row[0]: row[1:] for row in page.tables["Accuracy in % and macro-F1 on test"][0]}
    assert "vit (image only)" not in rows
    for kind, place in (("text", 2), ("image", 4)):
        scores = []
        for seed in (0, 1):
            table = pq.read_table(experiment / "missing" / f"concat-official-{seed}.parquet")
            table = table.filter(pa.array([each == kind for each in table["missing"].to_pylist()]))
            scores.append((table["label"].to_pylist(), table["predicted"].to_pylist()))
        assert rows["Concat"][place] == shown([100 * accuracy_score(*each) for each in scores], 2)
        assert rows["Concat"][place + 1] == shown([f1_score(*each, average="macro") for each in scores], 4)


def test_the_nearest_fifth_holds_the_images_nearest_to_train(page, experiment):
    distances = pq.read_table(experiment / "distances" / "clean.parquet").to_pydict()
    order = [i for _, i in sorted(zip(distances["distance"], distances["image_id"], strict=True))]
    parts = np.array_split(order, 5)
    row = next(row for row in page.tables["Accuracy in % by distance to train"][1] if row[0] == "Concat")
    for k, part in enumerate(parts):
        values = []
        for seed in (0, 1):
            table = pq.read_table(experiment / "predictions" / f"concat-clean-{seed}.parquet").to_pylist()
            values.append(100 * np.mean([r["label"] == r["predicted"] for r in table if r["image_id"] in set(part)]))
        assert row[1 + k] == shown(values, 1)


def test_the_deletion_test_is_averaged_over_images_with_its_interval(page, experiment):
    tables = [
        pq.read_table(experiment / "deletion" / f"attention_pooling-official-{seed}.parquet").to_pylist()
        for seed in (0, 1)
    ]
    values = [
        r["without_random"] - r["without_top"]
        for t in tables
        for r in t
        if (r["modality"], r["percent"]) == ("text", 40)
    ]
    row = next(row for row in page.tables["Probability of the true class"][0] if row[0] == "40 % of the words")
    assert row[5].startswith(f"{np.mean(values):+.3f} [")
    assert row[6] == "more than random"
    deleted = [row[0] for row in page.tables["Probability of the true class"][0][1:]]
    assert deleted[-2:] == ["10 % of the patches in the photograph", "40 % of the patches in the photograph"]


def test_an_interval_covers_a_mean_as_often_as_it_says_and_copies_widen_it():
    rng = np.random.default_rng(0)
    covered = [
        low < 0 < high for low, high in (interval(rng.normal(size=60), list(map(str, range(60)))) for _ in range(200))
    ]
    assert 0.88 < np.mean(covered) < 0.99
    once = rng.normal(size=30)
    twice, groups = np.repeat(once, 4), [str(i // 4) for i in range(120)]
    narrow, wide = interval(twice, list(map(str, range(120)))), interval(twice, groups)
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


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
    text = write_report(experiment).read_text(encoding="utf-8")
    assert text.count("achine-written") >= 3
    assert text.count("clinical use") >= 3


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
        ("distances", "no image features were cached for this protocol"),
        ("config.json", "unknown: config.json is not there"),
    ],
)
def test_what_is_not_there_is_left_out_with_a_reason(experiment, gone, reason):
    path = experiment / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    out = write_report(experiment)
    assert reason in out.read_text(encoding="utf-8")
    assert Page(out).tables


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


def test_the_same_folder_gives_the_same_bytes(experiment):
    first = hashlib.sha256(write_report(experiment).read_bytes()).hexdigest()
    assert hashlib.sha256(write_report(experiment).read_bytes()).hexdigest() == first


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
