"""Nothing private reaches run.json, and through it the published dataset."""

import json

import numpy as np
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.publishable import publishable, publishable_command, publishable_text
from builders.build import BuildConfig, build
from builders.index import index_images
from builders.run_folder import read_run
from dataset_card.card import write_card


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["vl-dermnet", "annotate", "photos", "--out", "runs/a"], "vl-dermnet annotate photos --out runs/a"),
        (["annotate", "/home/me/photos", "--out=/data/run"], "annotate photos --out=run"),
        (["--engine-arg", "hf_token=hf_S3CRET"], "--engine-arg 'hf_token=***'"),
        (["--engine-arg=api-key=S3CRET"], "'--engine-arg=api-key=***'"),
        (["--api-key", "S3CRET", "next"], "--api-key '***' next"),
        (["--endpoint", "http://user:S3CRET@intern.host:8000/v1"], "--endpoint 'http://***/v1'"),
        (["--engine-arg", "endpoint=https://intern.host/v1"], "--engine-arg 'endpoint=https://***/v1'"),
        (["--model", "OpenGVLab/InternVL3-8B-hf"], "--model OpenGVLab/InternVL3-8B-hf"),
        (["--endpoint", "http://user:c2VjcmV0UHc=@intern.host:8000/v1"], "--endpoint 'http://***/v1'"),
        (["--endpoint=http://user:S3/CRET=@intern.host/v1"], "'--endpoint=http://***/v1'"),
        (["--endpoint", "https://intern.host/v1?api_key=S3CRET#S3CRET"], "--endpoint 'https://***/v1'"),
        (["annotate", "/home/me/data=v2/photos", "--out", "/home/me/run=1"], "annotate photos --out run=1"),
        (["file:///home/me/photos", "C:\\Users\\me\\photos"], "photos photos"),
        (["--engine-arg", 'x={"api_key": "S3CRET", "n": 1}'], """--engine-arg 'x={"api_key": "***", "n": 1}'"""),
        (["hf://datasets/owner/name@v1"], "hf://datasets/owner/name@v1"),
    ],
)
def test_a_command_is_shown_without_secrets_hosts_and_places(words, shown):
    assert publishable_command(words) == shown


def test_values_are_cleaned_at_any_depth():
    value = {
        "a": {"token": "S3CRET", "path": "/home/me/x.json"},
        "urls": ["http://h/v1?api_key=S3CRET"],
        "n": 3,
        "ok": True,
        "no": None,
    }
    assert publishable(value) == {
        "a": {"token": "***", "path": "x.json"},
        "urls": ["http://***/v1"],
        "n": 3,
        "ok": True,
        "no": None,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "OSError: cannot map /home/me/secret/model.bin: see http://user:S3CRET@intern.host:8000/v1?key=S3CRET.",
            "OSError: cannot map model.bin: see http://***/v1",
        ),
        ("[Errno 2] No such file: '/home/me/my photos/a b.jpg'", "[Errno 2] No such file: 'a b.jpg'"),
        ("(~/models/x/config.json, C:\\Users\\me\\x.bin)", "(config.json, x.bin)"),
        ("path=/home/me/x.bin", "path=x.bin"),
        ("see hf://datasets/owner/name", "see hf://datasets/owner/name"),
        (
            "not an image: 3/4 of it, and/or 1 / 2, image/png </s> ~5 mm",
            "not an image: 3/4 of it, and/or 1 / 2, image/png </s> ~5 mm",
        ),
    ],
)
def test_a_sentence_keeps_its_words_and_loses_hosts_and_places(text, shown):
    assert publishable_text(text) == shown


def test_the_summary_is_written_without_hosts_and_places(tmp_path):
    folder = tmp_path / "photos" / "train" / "papule"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(folder / f"{number}.png")
    victims = [row.image_sha256 for row in index_images(tmp_path / "photos", 0)[:2]]
    script = {key: {"raise": f"no {tmp_path}/{key}/x at http://me:S3CRET@intern.host/v1"} for key in victims}
    (tmp_path / "script.json").write_text(json.dumps(script))
    config = AnnotateConfig(
        images=str(tmp_path / "photos"),
        out=tmp_path / "run",
        engine="scripted",
        n_workers=0,
        engine_args={"script": str(tmp_path / "script.json")},
    )
    told = run(config)
    assert all("intern.host" in reason for reason in told.restarts)  # on the screen of who ran it
    assert {row.reason for row in read_run(tmp_path / "run").descriptions.values()} >= {  # `build` publishes these
        "the engine died of it twice: RuntimeError: no x at http://***/v1"
    }
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written["reasons"] == {"the engine died of it twice: RuntimeError: no x at http://***/v1": 2}
    assert written["restarts"] == {"RuntimeError: no x at http://***/v1": sum(told.restarts.values())}


def test_nothing_private_stands_in_a_built_dataset(tmp_path):
    folder = tmp_path / "photos" / "train" / "papule"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    (tmp_path / "script.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("You are a doctor. Say what you see.")
    private = {
        "script": str(tmp_path / "script.json"),
        "hf_token": "hf_S3CRET",
        "endpoint": "http://user:S3CRET@intern.host/v1",
    }
    config = AnnotateConfig(
        images=str(tmp_path / "photos"),
        out=tmp_path / "run",
        engine="scripted",
        prompt=str(tmp_path / "mine.txt"),
        engine_args=private,
    )
    words = ["vl-dermnet", "annotate", str(tmp_path / "photos"), *(f"--engine-arg={k}={v}" for k, v in private.items())]
    run(config, command=publishable_command(words))
    build(
        BuildConfig(images=tmp_path / "photos", runs=(tmp_path / "run",), out=tmp_path / "dataset"), finish=write_card
    )
    texts = [path.read_text() for path in (tmp_path / "dataset").rglob("*") if path.suffix in (".md", ".json", ".csv")]
    texts.append((tmp_path / "run" / "run.json").read_text())
    for text in texts:
        for secret in ("S3CRET", "intern.host", str(tmp_path)):
            assert secret not in text
    assert json.loads(texts[-1])["config"]["engine_args"]["hf_token"] == "***"
