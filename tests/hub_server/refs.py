"""Routes of names for commits: branches, tags, history."""

from typing import TYPE_CHECKING

from tests.hub_server.messages import RefusalError, Reply, Request, answer
from tests.hub_server.repositories import repo_of, revision_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def list_refs(server: "HubServer", request: Request) -> Reply:
    """Branches, tags and, if asked for, pull requests."""
    repo = server.access.check_sees(request, repo_of(server, request))
    found = {
        "branches": [_ref(name, f"refs/heads/{name}", oid) for name, oid in repo.branches.items()],
        "converts": [],
        "tags": [_ref(name, f"refs/tags/{name}", oid) for name, oid in repo.tags.items()],
    }
    if request.is_set("include_prs"):
        names = [(f"refs/pr/{each.number}", each.head) for each in repo.pull_requests]
        found["pullRequests"] = [_ref(name, name, oid) for name, oid in names]
    return answer(found)


def _ref(name: str, ref: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": ref, "targetCommit": oid}


def create_tag(server: "HubServer", request: Request) -> Reply:
    """A tag on a revision; one that exists is never moved."""
    repo = server.access.check_writes(request, repo_of(server, request))
    name = request.json()["tag"]
    with server.lock:
        if name in repo.tags:
            raise RefusalError(409, f"Tag reference exists already: {name}")
        repo.tags[name] = revision_of(repo, request.parts["revision"]).oid
    return answer({})


def delete_tag(server: "HubServer", request: Request) -> Reply:
    """Remove a tag."""
    repo = server.access.check_writes(request, repo_of(server, request))
    if repo.tags.pop(request.parts["revision"], None) is None:
        raise RefusalError(404, "tag not found", "RevisionNotFound")
    return answer({})


def create_branch(server: "HubServer", request: Request) -> Reply:
    """A branch at a revision."""
    repo = server.access.check_writes(request, repo_of(server, request))
    name = request.parts["revision"]
    with server.lock:
        if name in repo.branches:
            raise RefusalError(409, f"Reference already exists: {name}")
        repo.branches[name] = revision_of(repo, request.json().get("startingPoint", "main")).oid
    return answer({})


def squash(server: "HubServer", request: Request) -> Reply:
    """One commit instead of a branch's history."""
    repo = server.access.check_writes(request, repo_of(server, request))
    branch = request.parts["revision"]
    with server.lock:
        tree = repo.commits[repo.branches[branch]].tree
        repo.branches[branch] = repo.add(None, tree, request.json()["message"]).oid
    return answer({})


def list_commits(server: "HubServer", request: Request) -> Reply:
    """The history of a revision, newest first."""
    repo = server.access.check_sees(request, repo_of(server, request))
    at: str | None = revision_of(repo, request.parts["revision"]).oid
    found: list[dict[str, object]] = []
    while at is not None:
        commit = repo.commits[at]
        authors = [{"user": commit.author}]
        about = {"title": commit.title, "message": commit.message, "date": commit.date}
        found.append({"id": at, **about, "authors": authors})
        at = commit.parent
    return answer(found, headers={"X-Total-Count": str(len(found))})
