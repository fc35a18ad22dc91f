"""The test Hub itself, asked by the stock clients only: what it lets through, and what it refuses."""

import hashlib
import random
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub_server.client import ME, ME_READING, YOU, connect, python

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def api(hub):
    api = HfApi(token=ME)
    api.create_repo("me/set", repo_type="dataset", private=True)
    return api


def add(api, files, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit("me/set", operations, commit_message="files", repo_type="dataset", **options)


def status_of(error):
    return error.value.response.status_code


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, of its LFS upload
@pytest.mark.parametrize("way", ["xet", "basic", "multipart"])
def test_a_large_file_comes_back_whole_over(hub, api, monkeypatch, tmp_path, way):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", way != "xet")
    hub.part_bytes = 1_000_000 if way == "multipart" else None
    add(api, {"a/b.parquet": CONTENT, "README.md": b"---\nlicense: mit\n---\n"})
    routes = [call.route for call in hub.calls]
    expected = {"xet": ["xorb-put"], "basic": ["lfs-put"], "multipart": ["lfs-part"] * 3 + ["lfs-complete"]}[way]
    assert [route for route in routes if route in ("xorb-put", "lfs-put", "lfs-part", "lfs-complete")] == expected
    (listed,) = api.get_paths_info("me/set", ["a/b.parquet"], repo_type="dataset")
    assert (listed.size, listed.lfs.sha256, listed.xet_hash is not None) == (len(CONTENT), SHA256, way == "xet")
    path = api.hf_hub_download("me/set", "a/b.parquet", repo_type="dataset", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == CONTENT
    assert hub.read("me/set")["a/b.parquet"] == CONTENT
    assert api.verify_repo_checksums("me/set", repo_type="dataset", cache_dir=tmp_path / "cache").mismatches == []


def test_xet_sends_only_the_chunks_that_are_new(hub, api, monkeypatch, tmp_path):
    add(api, {"a.bin": CONTENT})
    before = hub.storage.xet_bytes
    add(api, {"b.bin": CONTENT})
    again = hub.storage.xet_bytes
    assert before > len(CONTENT)
    assert again - before < 5_000  # only the list of its chunks
    connect(monkeypatch, hub, tmp_path / "other-machine")
    add(api, {"c.bin": CONTENT + b"other"})
    assert 0 < hub.storage.xet_bytes - again < 200_000  # the last chunk


def test_a_commit_on_a_stale_parent_is_refused(hub, api):
    first = add(api, {"a.txt": b"1"}).oid
    add(api, {"a.txt": b"2"}, parent_commit=first)
    with pytest.raises(HfHubHTTPError) as error:
        add(api, {"a.txt": b"3"}, parent_commit=first)
    assert status_of(error) == 412
    assert hub.read("me/set") == {"a.txt": b"2"}


def test_files_are_deleted_and_old_revisions_stay(hub, api):
    first = add(api, {"a.txt": b"1", "b/c.txt": b"2"}).oid
    api.create_tag("me/set", tag="v1", revision=first, repo_type="dataset")
    deletions = [CommitOperationDelete("a.txt"), CommitOperationDelete("b/")]
    api.create_commit("me/set", deletions, commit_message="less", repo_type="dataset")
    assert hub.read("me/set") == {}
    assert hub.read("me/set", "v1") == {"a.txt": b"1", "b/c.txt": b"2"}
    assert [commit.title for commit in api.list_repo_commits("me/set", repo_type="dataset")] == [
        "less",
        "files",
        "initial commit",
    ]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("me/set", tag="v1", repo_type="dataset")
    assert status_of(error) == 409
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("me/set", revision="v2")


def test_a_stranger_does_not_learn_of_a_private_repository(api):
    add(api, {"a.txt": b"1"})
    for token in (YOU, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).dataset_info("me/set")
    assert HfApi(token=ME_READING).dataset_info("me/set").private


def test_a_gated_repository_is_listed_and_not_read(hub, api, tmp_path):
    add(api, {"a.txt": b"1"})
    api.update_repo_settings("me/set", repo_type="dataset", visibility="public", gated="auto")
    assert HfApi(token=YOU).dataset_info("me/set").gated == "auto"
    assert "a.txt" in HfApi(token=YOU).list_repo_files("me/set", repo_type="dataset")
    for token in (YOU, False):
        with pytest.raises(GatedRepoError):
            HfApi(token=token).hf_hub_download("me/set", "a.txt", repo_type="dataset", cache_dir=tmp_path / "cache")
    hub.access.granted.add(("me/set", "you"))
    assert HfApi(token=YOU).hf_hub_download("me/set", "a.txt", repo_type="dataset", cache_dir=tmp_path / "other")


@pytest.mark.parametrize(("token", "status"), [(ME_READING, 403), (YOU, 404), ("hf_unknown", 401)])
def test_only_a_writing_token_of_the_owner_writes(hub, api, token, status):
    with pytest.raises(HfHubHTTPError) as error:
        add(HfApi(token=token), {"a.txt": b"1"})
    assert status_of(error) == status
    assert hub.read("me/set") == {}


def test_anybody_may_propose_and_the_owner_merges(hub, api):
    api.update_repo_settings("me/set", repo_type="dataset", visibility="public")
    made = add(HfApi(token=YOU), {"a.txt": b"1", "b.parquet": CONTENT}, create_pr=True)
    assert made.pr_revision == "refs/pr/1"
    assert hub.read("me/set") == {}
    assert hub.read("me/set", "refs/pr/1") == {"a.txt": b"1", "b.parquet": CONTENT}
    api.merge_pull_request("me/set", 1, repo_type="dataset")
    assert hub.read("me/set") == {"a.txt": b"1", "b.parquet": CONTENT}
    (found,) = api.get_repo_discussions("me/set", repo_type="dataset", author="you")
    assert (found.title, found.status) == ("files", "merged")


def test_a_bad_card_is_refused(hub, api):
    with pytest.raises(ValueError, match="Invalid metadata"):
        add(api, {"README.md": b"---\nlicense: [\n---\n"})
    assert hub.read("me/set") == {}


def test_long_listings_come_in_pages(hub, api):
    files = {f"folder/{number:04d}.txt": b"" for number in range(1_205)}
    add(api, files)
    assert {*files, ".gitattributes"} == set(api.list_repo_files("me/set", repo_type="dataset"))
    assert [call.route for call in hub.calls].count("tree") == 2
    assert [call.route for call in hub.calls].count("preupload") == 5


@pytest.mark.slow
def test_push_to_hub_and_load_dataset_work_as_on_the_real_one(hub, tmp_path):
    code = """
import datasets, numpy
rows = {"image": [numpy.full((8, 8, 3), n, dtype=numpy.uint8) for n in range(40)], "label": ["a", "b"] * 20}
features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
made = datasets.Dataset.from_dict(rows, features=features)
datasets.DatasetDict({"train": made, "test": made.select(range(4))}).push_to_hub("me/pushed", private=True)
loaded = datasets.load_dataset("me/pushed")
streamed = list(datasets.load_dataset("me/pushed", split="test", streaming=True))
print(loaded["train"].features == features, len(loaded["train"]), len(streamed), streamed[1]["image"].size)
"""
    assert python(code, hub, tmp_path / "other-home") == "True 40 4 (8, 8)\n"
    assert {call.route for call in hub.calls if call.status >= 500} == set()
