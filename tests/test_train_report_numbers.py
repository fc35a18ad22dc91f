"""report.html: its numbers computed again by others, from the same predictions."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from tests.finished_experiment import Page, write_experiment
from train.calibration import fit_temperature, softmax
from train.metrics import macro_f1
from train.report.explained import interval
from train.report.runs import Answers, read_runs
from train.report.scores import confusion_of, scores_of
from train.report.write import write_report
from train.table import experiment_table
from train.table.words import parts


@pytest.fixture
def experiment(tmp_path, photographs, make_run):
    return write_experiment(tmp_path, photographs, make_run)


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


def test_macro_scores_are_over_the_classes_of_each_seed_as_in_the_table():
    """A class that is not among the test images counts in the seed that answers it, and in no other."""
    labels = np.array([0, 1] * 10)
    answers_of = [np.where(np.arange(20) == 0, 2, labels), labels]
    runs = [SimpleNamespace(test=Answers([], labels, each, None), class_names=("a", "b", "c")) for each in answers_of]
    group = SimpleNamespace(chosen_runs=runs, chosen="concat", protocol="clean", title_of=lambda model: model)
    expected = [f1_score(labels, each, average="macro") for each in answers_of]
    assert [macro_f1(labels, each) for each in answers_of] == pytest.approx(expected)
    assert scores_of(group)["macro"][2] == shown(expected, 3)


def test_intervals_and_tests_stand_in_the_page_as_in_the_table(page, experiment):
    table = experiment_table(experiment)
    told = {part.title: part for part in parts(table)[1:]}
    assert len(told) >= 4
    for title, part in told.items():
        assert page.tables[title] == [[part.header, *part.lines]]
    assert any("Δ acc." in part.header for part in told.values())


def test_the_confusion_matrix_is_that_of_scikit_learn(experiment):
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
