"""The paper's table beside ours, with intervals and paired tests, from the predictions files alone."""

from train.table.experiment import experiment_table, table_json
from train.table.published import PUBLISHED
from train.table.rows import Comparison, Delta, Row, Score, Table

__all__ = ["PUBLISHED", "Comparison", "Delta", "Row", "Score", "Table", "experiment_table", "table_json"]
