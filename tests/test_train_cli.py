"""train/cli.py: light to import, results on stdout, mistakes in words."""

import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from builders.errors import UserError
from train.cli import app

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_importing_the_commands_pulls_in_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'pydantic', 'rich.progress'}"
    code = f"import train.cli, sys; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", ["train", "table", "report"])
def test_every_command_has_help_with_an_example(command):
    shown = call(command, "--help")
    assert shown.exit_code == 0
    assert f"Example: vl-dermnet {command}" in ANSI.sub("", shown.stdout)


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "predictions").mkdir()
    rows = pa.table({name: ["a", "b"] for name in ("image_id", "group", "label", "predicted")})
    pq.write_table(rows, tmp_path / "predictions" / "concat-official-0.parquet")
    return tmp_path


def test_table_prints_for_people_for_machines_and_for_a_readme(experiment):
    assert "Attention pooling" in call("table", experiment).stdout
    assert json.loads(call("table", experiment, "--json").stdout)["rows"][2]["ours"]["official"]["n_test"] == 2
    assert call("table", experiment, "--markdown").stdout.startswith("**published and ours**\n\n| model | paper acc. |")


def test_a_table_is_also_printed_for_a_paper_and_for_a_spreadsheet_but_one_at_a_time(experiment):
    assert call("table", experiment, "--latex").stdout.startswith("% published and ours\n\\begin{tabular}{lrrrr}")
    assert call("table", experiment, "--csv").stdout.startswith("model,protocol,published_accuracy,")
    raised = call("table", experiment, "--csv", "--json").exception
    assert str(raised).startswith("a table is printed in one format at a time\n  fix: give one of")


def test_an_unknown_control_is_named_before_anything_is_read():
    raised = call("train", "dataset", "--out", "exp", "--control", "upside_down").exception
    assert isinstance(raised, UserError)
    assert str(raised).startswith("unknown control 'upside_down'; choose one of: constant_text, emap, empty_text,")


@pytest.mark.parametrize(
    ("option", "value", "limit"), [("--weight-decay", "-1", "0"), ("--warmup", "1", "0.99"), ("--warmup", "-1", "0")]
)
def test_a_share_or_a_decay_that_cannot_be_says_what_is_allowed(option, value, limit):
    ended = call("train", "dataset", "--out", "exp", option, value)
    assert ended.exit_code == 2
    told = ANSI.sub("", ended.stderr)
    assert option in told
    assert re.search(rf"\b{re.escape(limit)}\b", told)


def test_an_unknown_protocol_says_what_is_allowed():
    raised = call("train", "dataset", "--out", "exp", "--protocol", "kaggle").exception
    assert isinstance(raised, UserError)
    assert str(raised) == (
        "protocol is 'kaggle': Input should be 'official', 'clean' or 'both'\n  fix: vl-dermnet train --help"
    )
