"""train from a Hub repository: the rows are those of the commit that was asked for, or there are none."""

import pytest

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from dataset_card.card import write_card
from tests.hub_server import HubServer
from tests.hub_server.client import connect
from train.config import TrainConfig
from train.data import load_examples
from train.experiment import run


@pytest.fixture
def hub(tmp_path, monkeypatch, private_cache):
    """The server, and a cache of this test's own in this process."""
    with HubServer(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        yield hub


@pytest.fixture
def publish_version(hub, photographs, make_run, tmp_path):
    """A function that publishes a dataset whose descriptions are its tag, and gives the commit."""

    def make(tag):
        run = make_run(text=lambda _: f"words of {tag}")
        build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / tag), finish=write_card)
        publish(PublishConfig(folder=tmp_path / tag, repo_id="me/set", tag=tag))
        return hub.dataset("me/set").head.oid

    return make


def read(tmp_path, revision=None, dataset="me/set"):
    examples = load_examples(TrainConfig(dataset=dataset, out=tmp_path / "exp", revision=revision))
    return examples.commit, {text for text in examples.texts if text}


def test_the_rows_are_those_of_the_revision_and_its_commit_is_kept(publish_version, tmp_path):
    first, second = publish_version("v1"), publish_version("v2")
    assert first != second
    for revision, commit, tag in (
        ("v1", first, "v1"),
        ("v2", second, "v2"),
        (None, second, "v2"),
        (first, first, "v1"),
    ):
        assert read(tmp_path, revision) == (commit, {f"words of {tag}"})


def test_a_branch_that_moved_is_read_as_it_is_now(publish_version, tmp_path):
    first = publish_version("v1")
    assert read(tmp_path) == (first, {"words of v1"})
    second = publish_version("v2")
    assert read(tmp_path) == (second, {"words of v2"})
    assert read(tmp_path, first) == (first, {"words of v1"})


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_fails_is_not_answered_from_an_old_cache(hub, publish_version, tmp_path, status):
    commit = publish_version("v1")
    read(tmp_path)
    publish_version("v2")
    hub.fail("info", status, times=1000, headers={"Retry-After": "0"})
    with pytest.raises(UserError):
        read(tmp_path)
    hub.faults.clear()
    hub.fail("*", status, times=1000, headers={"Retry-After": "0"})
    assert read(tmp_path, commit) == (commit, {"words of v1"}), "a commit cannot go stale"


def test_a_folder_has_no_commit(publish_version, tmp_path):
    publish_version("v1")
    assert read(tmp_path, dataset=str(tmp_path / "v1")) == (None, {"words of v1"})


def test_an_experiment_goes_on_with_the_commit_that_it_was_begun_on(publish_version, backbones, tmp_path):
    first = publish_version("v1")
    common = {"dataset": "me/set", "out": tmp_path / "exp", "text_backbone": str(backbones / "bert"), "epochs": 1}
    settings = TrainConfig(**common, models=("text_only",), protocol="official", is_frozen=True, n_seeds=1)
    run(settings)
    publish_version("v2")
    more = settings.model_copy(update={"n_seeds": 2})
    with pytest.raises(UserError) as raised:
        run(more)
    assert str(raised.value) == (
        f"{tmp_path / 'exp'} was begun on other rows: the dataset me/set has changed since\n"
        f"  fix: pin it: --revision {first}"
    )
    assert run(more.model_copy(update={"revision": first})).trained == ("text_only-official-1",)
