"""status: the state of a run, from its folder alone."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.status import status_of
from builders.errors import UserError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "train" / "papule"
    folder.mkdir(parents=True)
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.jpg")
    (folder / "broken.jpg").write_text("no image")
    return tmp_path / "photos"


def config(photos, out, **engine_args):
    return AnnotateConfig(
        images=str(photos), out=out, engine="scripted", engine_args=engine_args, n_workers=0, part_rows=1
    )


def test_a_finished_run(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    status = status_of(tmp_path / "run")
    assert (status.state, status.n_images, status.n_ok, status.n_refused, status.n_to_do) == ("finished", 7, 6, 1, 0)
    assert status.examples["refused"][0].endswith("not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF")
    assert status.images_per_s > 0
    assert status.time_left_s == 0


@pytest.mark.parametrize("content", ["{", '{"words": 1}', "[]"])
def test_a_damaged_session_is_named_and_may_be_removed(photos, tmp_path, content):
    run(config(photos, tmp_path / "run"))
    (file,) = (tmp_path / "run/sessions").glob("*.json")
    file.write_text(content)
    with pytest.raises(UserError, match=rf"^{file} (is damaged|does not tell a session)[^\n]+\n  fix: rm '{file}': "):
        status_of(tmp_path / "run")
    file.unlink()
    assert status_of(tmp_path / "run").n_ok == 6


def test_a_running_and_then_a_killed_run(photos, tmp_path):
    code = (
        "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
        "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
    )
    slow = config(photos, tmp_path / "run", seconds=0.8)
    process = subprocess.Popen([sys.executable, "-c", code, slow.model_dump_json()])
    try:
        while not list((tmp_path / "run").glob("parts/part-000002.parquet")):
            assert process.poll() is None
            time.sleep(0.02)
        assert status_of(tmp_path / "run").state == "running"
    finally:
        process.kill()
        process.wait()
    status = status_of(tmp_path / "run")
    assert status.state == "stopped"
    assert 0 < status.n_to_do < 6


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it holds no run\.json"):
        status_of(tmp_path)
