"""Routes of whole repositories: create, delete, look at, change settings, check a card's YAML."""

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.hub_server.messages import RefusalError, Reply, Request, answer
from tests.hub_server.repos import Commit, Entry, Repo

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def repo_of(server: "HubServer", request: Request) -> Repo | None:
    """The repository in a request's path, whoever asks."""
    parts = request.parts
    return server.repos.get((parts.get("type", "model"), f"{parts['namespace']}/{parts['name']}"))


def revision_of(repo: Repo, revision: str) -> Commit:
    """The commit that a revision names."""
    commit = repo.find(revision)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def create(server: "HubServer", request: Request) -> Reply:
    """An empty repository; public unless told otherwise, as on the Hub."""
    wish = request.json()
    account = server.access.account(request)
    namespace = wish.get("organization") or (account.name if account else "")
    server.access.check_namespace(request, namespace)
    repo_type, repo_id = wish.get("type", "model"), f"{namespace}/{wish['name']}"
    url = f"{request.base_url}/{_PREFIXES[repo_type]}{repo_id}"
    with server.lock:
        if (repo_type, repo_id) in server.repos:
            message = f"You already created this {repo_type} repo"
            return answer({"error": message, "url": url}, 409, {"X-Error-Message": message})
        server.repos[repo_type, repo_id] = Repo(repo_type, repo_id, wish.get("visibility") == "private")
    return answer({"url": url, "name": repo_id})


def delete(server: "HubServer", request: Request) -> Reply:
    """Remove a repository."""
    wish = request.json()
    account = server.access.account(request)
    namespace = wish.get("organization") or (account.name if account else "")
    server.access.check_namespace(request, namespace)
    if server.repos.pop((wish.get("type", "model"), f"{namespace}/{wish['name']}"), None) is None:
        raise RefusalError(404, "Repository not found", "RepoNotFound")
    return answer({})


def info(server: "HubServer", request: Request) -> Reply:
    """What a repository is, at a revision; a gated one tells this to anybody."""
    repo = server.access.check_sees(request, repo_of(server, request))
    commit = revision_of(repo, request.parts.get("revision", "main"))
    card = _card_of(commit)
    return answer(
        {
            "id": repo.id,
            "author": repo.namespace,
            "sha": commit.oid,
            "lastModified": commit.date,
            "private": repo.is_private,
            "gated": repo.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags") or [],
            "cardData": json.loads(json.dumps(card, default=str)),
            "siblings": [_sibling(path, entry, request) for path, entry in sorted(commit.tree.items())],
        }
    )


def _sibling(path: str, entry: Entry, request: Request) -> dict[str, Any]:
    if not request.is_set("blobs"):
        return {"rfilename": path}
    listed = entry.listed(path)
    lfs = listed.get("lfs")
    large = {} if lfs is None else {"lfs": {**lfs, "sha256": lfs["oid"]}}
    return {"rfilename": path, "size": entry.size, "blobId": entry.oid, **large}


def _card_of(commit: Commit) -> dict[str, Any]:
    readme = commit.tree.get("README.md")
    found = _FRONT_MATTER.match((readme.content or b"").decode()) if readme else None
    return (yaml.safe_load(found[1]) or {}) if found else {}


def validate_yaml(server: "HubServer", request: Request) -> Reply:
    """Refuse a card whose YAML cannot be read or whose licence is no word."""
    found = _FRONT_MATTER.match(request.json()["content"])
    if not found:
        return answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        card = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        return answer({"error": "bad yaml", "errors": [{"message": str(error)}], "warnings": []}, 400)
    if isinstance(card.get("license", ""), (str, list)):
        return answer({"errors": [], "warnings": []})
    return answer({"error": "bad yaml", "errors": [{"message": '"license" must be a string'}], "warnings": []}, 400)


def change_settings(server: "HubServer", request: Request) -> Reply:
    """Visibility and gate."""
    repo = server.access.check_writes(request, repo_of(server, request))
    wish = request.json()
    repo.gated = wish.get("gated", repo.gated)
    if "visibility" in wish:
        repo.is_private = wish["visibility"] == "private"
    return answer({"private": repo.is_private, "gated": repo.gated})


def auth_check(server: "HubServer", request: Request) -> Reply:
    """Whether the asker may read, or write."""
    repo = server.access.check_reads(request, repo_of(server, request))
    if request.parts.get("write"):
        server.access.check_writes(request, repo)
    return answer({})
