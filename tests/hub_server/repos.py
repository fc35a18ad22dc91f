"""Repositories as the Hub keeps them: commits that hold whole trees, branches, tags, pull requests."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

Tree = dict[str, "Entry"]
_NUMBERS = count()
LFS_PATTERNS = ("*.parquet", "*.arrow", "*.bin", "*.safetensors", "*.tar", "*.zip", "*.npz", "*.png", "*.jpg", "*.jpeg")
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a tree: in git itself (`content`), or large (`sha256`, and `xet_hash` if it came over Xet)."""

    size: int
    oid: str
    content: bytes | None = None
    sha256: str | None = None
    xet_hash: str | None = None

    def listed(self, path: str) -> dict[str, Any]:
        """As the tree route lists it."""
        row: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.sha256 is not None:
            n_bytes = len(_pointer(self.sha256, self.size))
            row["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": n_bytes}
        return row if self.xet_hash is None else {**row, "xetHash": self.xet_hash}


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit and the whole tree behind it."""

    oid: str
    parent: str | None
    tree: Tree
    title: str
    message: str
    author: str
    date: str


@dataclass(slots=True)
class PullRequest:
    """A pull request and where its branch `refs/pr/N` stands. `status` is `draft`, `open`, `closed` or `merged`."""

    number: int
    title: str
    author: str
    head: str
    status: str
    date: str


@dataclass(slots=True)
class Repo:
    """One repository of any type; `gated` is False, `auto` or `manual`."""

    type: str
    id: str
    is_private: bool
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict[str, Commit])
    branches: dict[str, str] = field(default_factory=dict[str, str])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    pull_requests: list[PullRequest] = field(default_factory=list[PullRequest])

    def __post_init__(self) -> None:
        self.branches["main"] = self.add(None, {".gitattributes": in_git(GITATTRIBUTES)}, "initial commit").oid

    @property
    def namespace(self) -> str:
        """The user or organisation that owns it."""
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        """The newest commit of `main`."""
        return self.commits[self.branches["main"]]

    def add(self, parent: str | None, tree: Tree, title: str, message: str = "", author: str = "me") -> Commit:
        """A new commit that no branch points to yet."""
        facts = [parent, sorted((path, entry.oid) for path, entry in tree.items()), title, message, next(_NUMBERS)]
        commit = Commit(_sha1(json.dumps(facts).encode()), parent, tree, title, message, author, now())
        self.commits[commit.oid] = commit
        return commit

    def find(self, revision: str) -> Commit | None:
        """The commit behind a branch, tag, pull request's branch, or (start of a) commit's id."""
        if revision in self.branches:
            return self.commits[self.branches[revision]]
        if revision in self.tags:
            return self.commits[self.tags[revision]]
        request = re.fullmatch(r"refs/pr/(\d+)", revision)
        if request and 0 < int(request[1]) <= len(self.pull_requests):
            return self.commits[self.pull_requests[int(request[1]) - 1].head]
        if revision.startswith("refs/heads/"):
            return self.find(revision.removeprefix("refs/heads/"))
        named = [commit for oid, commit in self.commits.items() if len(revision) >= 5 and oid.startswith(revision)]
        return named[0] if len(named) == 1 else None


def in_git(content: bytes) -> Entry:
    """A small file."""
    return Entry(len(content), _sha1(b"blob %d\0" % len(content) + content), content)


def large(sha256: str, size: int, xet_hash: str | None = None) -> Entry:
    """A file that git knows as a pointer only."""
    pointer = _pointer(sha256, size)
    return Entry(size, _sha1(b"blob %d\0" % len(pointer) + pointer), None, sha256, xet_hash)


def now() -> str:
    """In the Hub's form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
