"""bench frozen: every row of the paper fitted on cached features; what was measured is kept."""

import pytest

from builders.errors import UserError
from builders.files import read_json, write_json
from train.bench.frozen import FrozenBench, as_markdown, bench_frozen
from train.config import PAPER_MODELS

MACHINE = {"system": "Linux", "n_cores": 2, "memory_gib": 8.0, "gpus": []}
SIZE = {"n_train": 60, "n_test": 20, "n_classes": 2, "n_image_tokens": 5, "n_text_tokens": 4, "dim": 8, "epochs": 2}
LOOP = {"batch_size": 16, "lr": 0.01}


def test_every_row_is_fitted_and_what_was_measured_is_kept(tmp_path):
    told = []
    bench = FrozenBench(out=tmp_path / "frozen", n_seeds=1, n_jobs=2, **SIZE, **LOOP)
    first = bench_frozen(bench, "vl-dermnet bench frozen", MACHINE, "now", say=told.append)
    assert sorted(first["fits"]) == sorted(f"{name}-0" for name in PAPER_MODELS)
    assert told[0] == "writing features"
    assert all(0 <= each["accuracy"] <= 1 and each["seconds"] > 0 for each in first["fits"].values())
    told.clear()
    kept = {key: fit for key, fit in first["fits"].items() if key != "concat-0"}
    write_json(tmp_path / "frozen.json", {**first, "fits": kept})  # as of a bench that was stopped
    second = bench_frozen(bench, "again", MACHINE, "later", say=told.append)
    assert [line.partition(":")[0] for line in told[1:]] == ["concat, seed 0"]
    assert second["wall_s"] > first["wall_s"] > 0
    assert second["fits"].items() > kept.items()
    assert read_json(tmp_path / "frozen.json") == second
    page = (tmp_path / "frozen.md").read_text()
    assert page == as_markdown(second)
    assert "6 fits in" in page
    assert "2 epochs, batches of 16, learning rate 0.01, 2 fits at once" in page
    with pytest.raises(UserError, match="holds figures of other settings"):
        bench_frozen(FrozenBench(out=tmp_path / "frozen"), "", MACHINE, "", say=told.append)
