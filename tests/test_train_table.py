"""train/table.py: every number from the predictions files, beside what the paper reports."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from builders.errors import UserError
from train.table import experiment_table, table_json


def write(folder, name, labels, predicted):
    (folder / "predictions").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"label": list(labels), "predicted": list(predicted)}), folder / f"predictions/{name}.parquet"
    )


@pytest.fixture
def experiment(tmp_path):
    write(tmp_path, "image_only-official-0", "aabb", "aabb")
    write(tmp_path, "image_only-official-1", "aabb", "aaba")
    write(tmp_path, "image_only-clean-0", "ab", "ab")
    write(tmp_path, "attention_pooling-official-0", "aabb", "bbaa")
    return tmp_path


def test_means_and_standard_deviations_are_over_seeds(experiment):
    rows = {row.model: row for row in experiment_table(experiment).rows}
    score = rows["image_only"].ours["official"]
    assert (score.accuracy_mean, score.n_seeds, score.n_test) == (87.5, 2, 4)
    assert score.accuracy_sd == pytest.approx(17.6777, abs=1e-4)
    assert score.macro_f1_mean == pytest.approx((1 + (0.8 + 2 / 3) / 2) / 2)
    assert rows["image_only"].ours["clean"].accuracy_sd is None
    assert rows["attention_pooling"].ours["official"].macro_f1_mean == 0
    assert rows["concat"].ours == {}


def test_the_markdown_reads_as_the_paper_does(experiment, golden):
    golden("train_table.md", experiment_table(experiment).as_markdown())


def test_json_holds_unrounded_numbers_and_the_notes(experiment):
    values = json.loads(table_json(experiment_table(experiment)))
    assert [row["model"] for row in values["rows"]][-1] == "attention_pooling"
    assert values["rows"][0]["published_accuracy"] == 35.66
    assert "comparable only to ours on DermNet's official split" in values["notes"][0]
    assert "not for clinical use" in values["notes"][-1]


def test_a_model_that_the_paper_lacks_comes_last_and_without_published_numbers(experiment):
    write(experiment, "new_fusion-official-0", "ab", "ab")
    row = experiment_table(experiment).rows[-1]
    assert (row.model, row.published_accuracy) == ("new_fusion", None)


def test_the_terminal_table_fits_a_hundred_columns_without_breaking_a_number(experiment):
    console = Console(width=100, file=io.StringIO())
    console.print(experiment_table(experiment).as_rich())
    assert "87.50 ± 17.68" in console.file.getvalue()


def test_a_folder_without_predictions_says_how_to_get_some(tmp_path):
    with pytest.raises(UserError, match=r"holds no predictions/\*\.parquet\n  fix: vl-dermnet train DATASET --out"):
        experiment_table(tmp_path)
