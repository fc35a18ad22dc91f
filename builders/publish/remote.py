"""What the repository holds at one commit, and which of it an earlier `publish` wrote."""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import get_session, hf_raise_for_status

from builders.dataset_folder import CHECKSUMS, PROVENANCE
from builders.errors import UserError
from builders.publish.contents import LocalFile

OF_THE_HUB = ".gitattributes"  # it writes and updates this one by itself
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass
class Repository:
    """A repository and the account that asks for it. `token` is "" for a stranger; it is never printed."""

    id: str
    type: str
    token: str = field(repr=False)

    @cached_property
    def api(self) -> HfApi:
        """The Hub's client, bound to the account."""
        return HfApi(token=self.token or False)

    @cached_property
    def account(self) -> dict[str, Any]:
        """Who the token belongs to, asked once: the Hub limits this question strictly."""
        return self.api.whoami()

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/{'datasets/' if self.type == 'dataset' else ''}{self.id}"

    def read(self, path: str, commit: str) -> bytes:
        """The bytes of a small file at a commit, from the Hub and from no cache."""
        url = hf_hub_url(self.id, path, repo_type=self.type, revision=commit)
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        response = get_session().get(url, headers=headers)
        hf_raise_for_status(response)
        return response.content


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of the repository; `sha256` is what the Hub states of a large one, None of a small one."""

    path: str
    n_bytes: int
    git_oid: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository at the commit `head`; `written` is what the last `publish` wrote: path -> sha256."""

    repo: Repository
    head: str
    is_private: bool
    is_gated: bool
    files: dict[str, RemoteFile]
    written: dict[str, str]

    def holds(self, local: LocalFile) -> bool:
        """Whether the repository has this file with these bytes, by the hash that git or the Hub knows it by."""
        there = self.files.get(local.path)
        if there is None or there.n_bytes != local.n_bytes:
            return False
        return _git_oid(local.read()) == there.git_oid if there.sha256 is None else local.sha256 == there.sha256

    def is_ours(self, path: str) -> bool:
        """Whether the file is as the last `publish` left it."""
        if path not in self.written:
            return False
        stated = self.files[path].sha256
        return (stated or hashlib.sha256(self.repo.read(path, self.head)).hexdigest()) == self.written[path]


def open_repository(repo_id: str, repo_type: str, anonymous: bool = False) -> Repository:
    """Raises `UserError` where nobody is logged in, unless looking is enough."""
    token = get_token()
    if token is None and not anonymous:
        raise UserError(
            "publishing needs an access token with the right to write, and none was found",
            "make one on https://huggingface.co/settings/tokens, then: hf auth login   (or set HF_TOKEN)",
        )
    return Repository(repo_id, repo_type, token or "")


def read_remote(repo: Repository, revision: str | None = None) -> Remote | None:
    """The repository now, at one commit; None where there is none, or none that this account may know of."""
    try:
        found = repo.api.repo_info(repo.id, repo_type=repo.type, revision=revision)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    head = str(found.sha)
    listed = repo.api.list_repo_tree(repo.id, repo_type=repo.type, revision=head, recursive=True)
    files = {
        each.path: RemoteFile(each.path, each.size, each.blob_id, each.lfs.sha256 if each.lfs else None)
        for each in listed
        if isinstance(each, RepoFile)
    }
    written = _parse(repo.read(CHECKSUMS, head), repo.type) if CHECKSUMS in files else {}
    return Remote(repo, head, bool(found.private), bool(found.gated), files, written)


def commit_of(repo: Repository, revision: str) -> str | None:
    """The commit behind a branch or tag; None where there is no such."""
    try:
        return str(repo.api.repo_info(repo.id, repo_type=repo.type, revision=revision).sha)
    except RevisionNotFoundError:
        return None


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _parse(text: bytes, repo_type: str) -> dict[str, str]:
    """What a `SHA256SUMS` of ours states; {} for one that is not ours, so that nothing it names is ever touched."""
    lines = [_LINE.fullmatch(line) for line in text.decode("utf-8", "replace").splitlines()]
    written = {line[2]: line[1] for line in lines if line}
    is_ours = repo_type == "model" or any(path.startswith(f"{PROVENANCE}/") for path in written)
    if not is_ours or len(written) < len(lines):
        return {}
    return {**written, CHECKSUMS: hashlib.sha256(text).hexdigest()}
