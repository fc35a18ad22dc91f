"""Who may read what was published, under which name, and who may write: public, gated, tagged, proposed, refused."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from builders.publish.config import PublishConfig
from builders.publish.job import preview, publish
from tests.hub_server.client import ME, ME_READING, YOU, connect
from tests.publishing import contents, refusal, wish


def test_a_public_repository_needs_the_word(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    publish(wish(folder, public=True))
    assert not hub.dataset("me/set").is_private
    assert refusal(wish(folder)) == (
        "me/set is public, so everybody can read at once what is published there\n"
        "  fix: add --public if that is meant, else choose another repository"
    )


def test_a_repository_opens_only_when_all_of_it_is_there_and_gated(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    seen = []

    def look():
        repo = hub.dataset("me/set")
        seen.append((repo.is_private, repo.gated, hub.read("me/set") == contents(folder)))

    hub.fail("settings", look)
    done = publish(wish(folder, public=True, gated=True))
    assert seen == [(True, False, True)]
    repo = hub.dataset("me/set")
    assert (repo.is_private, repo.gated, done.is_private) == (False, "auto", False)
    with pytest.raises(GatedRepoError):
        HfApi(token=YOU).hf_hub_download("me/set", "README.md", repo_type="dataset")


def test_a_public_repository_is_gated_before_anything_new_is_in_it(hub, make_dataset):
    publish(wish(make_dataset("tiny-doctor"), public=True))
    gates = []
    hub.fail("preupload", lambda: gates.append(hub.dataset("me/set").gated))
    publish(wish(make_dataset("tiny-doctor", "other"), public=True, gated=True))
    assert gates == ["auto"]


def test_a_tag_names_the_commit_and_is_never_moved(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    first = publish(wish(folder, tag="v1"))
    assert hub.dataset("me/set").tags == {"v1": first.commit}
    assert publish(wish(folder, tag="v1")).commit == first.commit
    folder = make_dataset("tiny-doctor", "other")
    assert refusal(wish(folder, tag="v1")) == (
        f"me/set has a tag 'v1' already, on commit {first.commit[:12]}; tags are never moved\n"
        "  fix: choose another --tag"
    )
    assert hub.dataset("me/set").head.oid == first.commit
    second = publish(wish(folder, tag="v2"))
    assert hub.dataset("me/set").tags == {"v1": first.commit, "v2": second.commit}


def test_a_pull_request_leaves_main_as_it_is(hub, make_dataset, monkeypatch, tmp_path):
    old = make_dataset("tiny-doctor")
    publish(wish(old, public=True))
    new = make_dataset("tiny-doctor", "other", folder="new")
    connect(monkeypatch, hub, tmp_path / "home", token=YOU)
    done = publish(wish(new, public=True, pr=True))
    assert hub.read("me/set") == contents(old)
    assert hub.read("me/set", "refs/pr/1") == contents(new)
    assert done.pull_request == f"{hub.url}/datasets/me/set/discussions/1"
    assert done.load == "datasets.load_dataset('me/set', revision='refs/pr/1')"
    assert publish(wish(new, public=True, pr=True)).pull_request == done.pull_request  # not a second one
    HfApi(token=ME).merge_pull_request("me/set", 1, repo_type="dataset")
    assert hub.read("me/set") == contents(new)
    assert publish(wish(new, public=True, pr=True)).pull_request is None


def test_a_pull_request_needs_a_repository(hub, make_dataset):
    for act in (publish, preview):
        assert refusal(wish(make_dataset("tiny-doctor"), pr=True), act) == (
            "there is no repository me/set to propose a pull request to, or this account may not see it\n"
            "  fix: publish without --pr first, or check the name"
        )
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (
            "",
            "publishing needs an access token with the right to write, and none was found\n"
            "  fix: make one on https://huggingface.co/settings/tokens, then: hf auth login   (or set HF_TOKEN)",
        ),
        (
            "hf_unknown",
            "the Hub does not accept this access token\n  fix: hf auth login --force   (or set HF_TOKEN anew)",
        ),
        (
            ME_READING,
            "the access token of 'me' may only read\n  fix: make one with the right to write on"
            " https://huggingface.co/settings/tokens, then: hf auth login --force",
        ),
        (
            YOU,
            "this account may not do this with me/set: You don't have the rights to create a dataset under the"
            ' namespace "me"\n  fix: a token with the right to write for me, an own repository, or --pr',
        ),
    ],
    ids=["none", "unknown", "reading", "of another"],
)
def test_an_account_that_may_not_write_is_told_what_it_lacks(hub, make_dataset, monkeypatch, tmp_path, token, told):
    connect(monkeypatch, hub, tmp_path / "home", token=token)
    assert refusal(wish(make_dataset("tiny-doctor"))) == told
    assert hub.repos == {}


def test_the_dataset_of_another_can_only_be_proposed_to(hub, make_dataset, monkeypatch, tmp_path):
    publish(wish(make_dataset("tiny-doctor"), public=True))
    connect(monkeypatch, hub, tmp_path / "home", token=YOU)
    told = refusal(wish(make_dataset("tiny-doctor", "other"), public=True))
    assert told.startswith(
        "this account may not do this with me/set: You don't have the required permissions on me/set"
    )


def test_an_organisation_one_belongs_to_is_published_to(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    publish(PublishConfig(folder=folder, repo_id="clinic/set"))
    assert hub.read("clinic/set") == contents(folder)
