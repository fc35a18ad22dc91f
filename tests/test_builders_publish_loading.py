"""What was published is what `load_dataset` gives; what a second version costs over Xet."""

import json
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
from PIL import Image

from builders.build import BuildConfig, build
from builders.publish.config import PublishConfig
from builders.publish.job import preview, publish
from dataset_card.card import write_card
from tests.hub_server.client import YOU, connect, python

MAX_SHARE = 0.02  # new bytes of a second description set, of a dataset with images
WORDS = ("a", "well", "defined", "erythematous", "plaque", "with", "fine", "scale", "on", "dry", "skin", "no", "crust")


LOAD = """
import hashlib, json
import builders, datasets

datasets.logging.set_verbosity_error()

def rows(loaded):
    return [[split, row["path"], row["description"]] for split, part in loaded.items() for row in part]

def n_photographs(loaded):
    stored = loaded.cast_column("image", datasets.Image(decode=False))
    images = [(row["image"]["bytes"], row["image_sha256"]) for part in stored.values() for row in part]
    return sum(hashlib.sha256(content).hexdigest() == digest for content, digest in images)

plain, streaming = datasets.load_dataset("me/set"), datasets.load_dataset("me/set", streaming=True)
print(json.dumps({
    "plain": rows(plain),
    "streaming": rows(streaming),
    "v1": rows(datasets.load_dataset("me/set", revision="v1")),
    "other": rows(datasets.load_dataset("me/set", "other")),
    "ours": rows(builders.load("me/set", set_name="other")),
    "configs": datasets.get_dataset_config_names("me/set"),
    "configs of v1": datasets.get_dataset_config_names("me/set", revision="v1"),
    "photographs": [n_photographs(plain), n_photographs(streaming)],
    "features": plain["train"].features.to_dict(),
}))
"""


@pytest.mark.usefixtures("private_cache")
def test_load_dataset_gives_what_was_published(hub, photographs, make_run, tmp_path):
    runs = (make_run(), make_run("other", text=lambda row: f"Other words for {row.image_id}."))
    for tag, of in (("v1", runs[:1]), ("v2", runs)):
        build(BuildConfig(images=photographs, runs=of, out=tmp_path / tag, with_images=True), finish=write_card)
        publish(PublishConfig(folder=tmp_path / tag, repo_id="me/set", tag=tag, rights_holder="Example Hospital"))
    local = {name: datasets.load_dataset(str(tmp_path / "v2"), name) for name in ("tiny-doctor", "other")}
    rows = {
        name: [[split, row["path"], row["description"]] for split, part in loaded.items() for row in part]
        for name, loaded in local.items()
    }
    hub.calls.clear()
    found = json.loads(python(LOAD, hub, tmp_path / "reader"))
    assert {"xet-read-token", "reconstruction", "xorb-get"} <= {call.route for call in hub.calls}
    assert found["plain"] == found["streaming"] == found["v1"] == rows["tiny-doctor"]
    assert found["other"] == found["ours"] == rows["other"]
    assert found["configs"] == ["tiny-doctor", "other"]
    assert found["configs of v1"] == ["tiny-doctor"]
    assert found["photographs"] == [26, 26]
    assert found["features"] == local["tiny-doctor"]["train"].features.to_dict()


MAY_READ = """
import datasets
try:
    print(len(datasets.load_dataset("me/set", split="train")))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_others_load_it_only_where_they_may(hub, photographs, make_run, tmp_path):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset"), finish=write_card)
    seen = {}
    for door in ({}, {"public": True, "gated": True}):
        publish(PublishConfig(folder=tmp_path / "dataset", repo_id="me/set", **door))
        for token in ("", YOU):
            seen[len(door), token] = python(MAY_READ, hub, tmp_path / f"home-{len(door)}{token}", token).strip()
    assert seen == {
        (0, ""): "DatasetNotFoundError",
        (0, YOU): "DatasetNotFoundError",
        (2, ""): "DatasetNotFoundError",
        (2, YOU): "DatasetNotFoundError",
    }
    hub.access.granted.add(("me/set", "you"))
    assert python(MAY_READ, hub, tmp_path / "home-granted", YOU) == "19\n"


@pytest.fixture
def noise(tmp_path):
    """600 photographs of about 60 kB that neither compress nor resemble each other, in DermNet's layout."""
    root, random = tmp_path / "noise", np.random.default_rng(0)
    for number in range(600):
        path = root / ("test" if number % 5 == 0 else "train") / f"class {number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path, quality=92)
    return root


def words_for(name):
    def text(row):
        random = np.random.default_rng(int(row.image_id, 16) + len(name))
        return f"{name}: {' '.join(random.choice(WORDS, 140))}"

    return text


@dataclass
class Cost:
    """Of one publish: the bytes of the files it sent, and what of them the chunk store did not have."""

    n_file_bytes: int
    n_xet_bytes: int


def cost_of(hub, folder):
    config = PublishConfig(folder=folder, repo_id="me/set", rights_holder="Example Hospital")
    before = hub.storage.xet_bytes
    told = preview(config)
    done = publish(config)
    tree = hub.dataset("me/set").head.tree
    in_git = sum(n_bytes for _, path, n_bytes in told.files if path in tree and tree[path].sha256 is None)
    assert tree["a/train-00000-of-00001.parquet"].xet_hash is not None
    assert done.n_new_bytes == told.n_new_bytes
    return Cost(done.n_new_bytes, hub.storage.xet_bytes - before + in_git)


@pytest.fixture
def real(shared_data):
    """307 real smartphone photographs, 142 kB each."""
    return shared_data / "pad_ufes_20"


@pytest.mark.slow
@pytest.mark.parametrize(("collection", "is_same_machine"), [("noise", True), ("noise", False), ("real", False)])
def test_a_second_vlm_sends_its_text_and_no_image_again(
    hub, make_run, tmp_path, request, monkeypatch, collection, is_same_machine
):
    images = request.getfixturevalue(collection)
    runs = [make_run(name, text=words_for(name), images=images) for name in ("a", "b", "c")]

    def version(name, *of, primary="a"):
        config = BuildConfig(images=images, runs=of, out=tmp_path / name, primary=primary, with_images=True)
        build(config, finish=write_card)
        if not is_same_machine:
            connect(monkeypatch, hub, tmp_path / f"machine-{name}")
        return cost_of(hub, config.out)

    first = version("one", runs[0])
    second = version("two", *runs[:2])
    third = version("three", *runs, primary="c")  # the images move to another set's shards
    print(first, second, third)
    assert first.n_xet_bytes >= sum(path.stat().st_size for path in images.rglob("*.jpg"))
    assert second.n_xet_bytes <= second.n_file_bytes <= MAX_SHARE * first.n_file_bytes
    assert third.n_file_bytes > first.n_file_bytes
    assert third.n_xet_bytes <= 0.05 * first.n_file_bytes  # of every row group, the chunks at its ends
