"""train, as a whole, on data with something wrong: what it can do it does and tells, and else it says what to do."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from train.experiment import run
from train.fusion import FUSIONS
from train.predict import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rewritten(dataset, tmp_path):
    """A function that copies the dataset; `change` gets the rows of a shard and gives others."""

    def make(name, change):
        copy = tmp_path / name
        shutil.copytree(dataset, copy)
        for shard in copy.glob("*/*.parquet"):
            rows = pq.read_table(shard)
            pq.write_table(pa.Table.from_pylist(change(rows.to_pylist()), rows.schema), shard)
        return copy

    return make


@pytest.fixture
def config(tmp_path, experiment_config):
    defaults = {"models": ("concat",), "lr": 0.01}
    return lambda dataset, out="exp", **options: experiment_config(
        **{"dataset": str(dataset), "out": tmp_path / out, **defaults, **options}
    )


def answers(config, name="concat-official-0"):
    table = pq.read_table(config.out / "predictions" / f"{name}.parquet")
    return dict(zip(table["image_id"].to_pylist(), table["logits"].to_pylist(), strict=True))


def test_the_order_of_the_rows_in_the_files_changes_no_answer(config, dataset, rewritten):
    before, after = config(dataset, "before"), config(rewritten("turned", lambda rows: rows[::-1]), "after")
    run(before)
    run(after)
    assert answers(before) == answers(after)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_rows_without_a_description_are_counted_and_answered(config, rewritten, capsys, is_frozen):
    def drop(rows):
        return [{**row, "description": None if i % 3 else row["description"]} for i, row in enumerate(rows)]

    settings = config(rewritten("gaps", drop), is_frozen=is_frozen, models=tuple(FUSIONS), epochs=1)
    run(settings)
    assert "rows have no description; their text is empty" in capsys.readouterr().err
    for name in FUSIONS:
        assert np.isfinite(list(answers(settings, f"{name}-official-0").values())).all(), name


def test_a_set_without_any_description_trains_and_the_image_still_tells(config, rewritten, photographs, capsys):
    settings = config(
        rewritten("mute", lambda rows: [{**row, "description": ""} for row in rows]), models=("concat", "text_only")
    )
    run(settings)
    assert "26 rows have no description" in capsys.readouterr().err
    of_text = np.asarray(list(answers(settings, "text_only-official-0").values()))
    np.testing.assert_allclose(of_text, of_text[:1].repeat(len(of_text), axis=0), atol=1e-6)
    assert len({tuple(logits) for logits in answers(settings).values()}) > 1
    photograph = photographs / "test" / "papule" / "pap-0.jpg"
    found = Predictor(settings.out / "models" / "concat-official-0").predict(photograph)
    assert found.text == "missing"


def test_a_test_split_of_one_class_is_scored_and_reported(config, rewritten):
    def keep(rows):
        return [
            {**row, "split_official": "excluded"} if row["split_official"] == "test" and row["label"] != 0 else row
            for row in rows
        ]

    settings = config(rewritten("one", keep))
    folder = run(settings).folder
    (row,) = [each for each in read_json(folder / "results.json")["table"]["rows"] if each["model"] == "concat"]
    n_right = sum(np.argmax(logits) == 0 for logits in answers(settings).values())
    assert row["ours"]["official"]["accuracy_mean"] == pytest.approx(100 * n_right / len(answers(settings)))
    assert (folder / "report.html").is_file()


def test_a_train_split_of_one_class_stops_before_anything_is_trained(config, rewritten):
    def keep(rows):
        return [
            {**row, "split_official": "excluded"} if row["split_official"] == "train" and row["label"] != 0 else row
            for row in rows
        ]

    settings = config(rewritten("one", keep))
    with pytest.raises(UserError, match="the train split of the official protocol holds a single class"):
        run(settings)
    assert not (settings.out / "models").exists()


@pytest.mark.parametrize("option", [{"lr": 1e30}, {"image_lr": 1e30, "is_frozen": False}])
def test_a_loss_that_is_no_number_leaves_no_model_and_no_prediction(config, dataset, option):
    settings = config(dataset, **option)
    with pytest.raises(
        UserError, match=r"the loss of concat became (nan|inf) in epoch \d \(seed 0, lr .*\)\n  fix: lower"
    ):
        run(settings)
    assert not (settings.out / "models").exists()
    assert not (settings.out / "predictions").exists()


def test_a_dataset_that_changes_while_a_first_run_is_under_way_is_noticed_when_it_goes_on(
    config, dataset, photographs, make_run, monkeypatch
):
    from rich.progress import Progress

    settings = config(dataset, is_frozen=False)
    advance, n_done = Progress.advance, []

    def stopping(self, task, n=1):
        advance(self, task, n)
        n_done.append(self.tasks[task].description == "train")
        if sum(n_done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    monkeypatch.undo()
    assert not (settings.out / "predictions").exists()
    build(BuildConfig(images=photographs, runs=(make_run(),), out=dataset, with_images=True))
    with pytest.raises(UserError, match=r"was begun on other rows: the dataset .* has changed since"):
        run(settings)
    assert not (settings.out / "predictions").exists()
