"""What the tests of publish ask for and compare; the fixtures `hub` and `make_dataset` are in conftest.py."""

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from builders.dataset_folder import CHECKSUMS, files_in
from builders.errors import UserError
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from tests.hub_server.client import ME


def wish(folder, repo_id="me/set", **options):
    return PublishConfig(folder=folder, repo_id=repo_id, **options)


def contents(folder):
    return {path: (folder / path).read_bytes() for path in [*files_in(folder), CHECKSUMS]}


def put(files, repo_id="me/set"):
    """Commit files as somebody does who does not use publish."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return HfApi(token=ME).create_commit(repo_id, operations, commit_message="by hand", repo_type="dataset").oid


def refusal(config, act=publish):
    with pytest.raises(UserError) as error:
        act(config)
    return str(error.value)
