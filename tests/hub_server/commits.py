"""Routes of a commit: what kind of file each one is, then all of them in one step."""

import fnmatch
import json
from typing import TYPE_CHECKING, Any

from tests.hub_server.messages import RefusalError, Reply, Request, answer, decoded
from tests.hub_server.pull_requests import open_with
from tests.hub_server.repos import Entry, Repo, Tree, in_git, large
from tests.hub_server.repositories import repo_of, revision_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

MAX_FILES_PER_QUESTION = 256
LFS_FROM_BYTES = 10 * 1024 * 1024  # larger ones never go into git


def preupload(server: "HubServer", request: Request) -> Reply:
    """For each file: in git or large, and what is there under its name already."""
    repo = server.access.check_writes(request, repo_of(server, request), request.is_set("create_pr"))
    tree = revision_of(repo, request.parts["revision"]).tree
    files = request.json()["files"]
    if len(files) > MAX_FILES_PER_QUESTION:
        raise RefusalError(413, f"too many files: {len(files)}")
    return answer({"files": [_told(file, tree) for file in files]})


def _told(file: dict[str, Any], tree: Tree) -> dict[str, Any]:
    rules = (tree[".gitattributes"].content or b"").decode().splitlines()
    by_name = any(fnmatch.fnmatch(file["path"].rsplit("/", 1)[-1], rule.split()[0]) for rule in rules if rule)
    is_large = by_name or file["size"] >= LFS_FROM_BYTES or b"\0" in decoded(file["sample"])
    told = {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
    there = tree.get(file["path"])
    return told if there is None else {**told, "oid": there.sha256 or there.oid}


def commit(server: "HubServer", request: Request) -> Reply:
    """Apply all operations to the parent's tree, or none; a stale parent is refused."""
    as_request = request.is_set("create_pr")
    repo = server.access.check_writes(request, repo_of(server, request), as_request)
    account = server.access.account(request)
    author = account.name if account else ""
    revision = request.parts["revision"]
    header, *operations = [json.loads(line) for line in request.body().splitlines() if line.strip()]
    with server.lock:
        parent = revision_of(repo, revision)
        wanted = header["value"].get("parentCommit")
        if wanted and wanted != parent.oid:
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(parent.tree)
        for operation in operations:
            _apply(server, tree, operation["key"], operation["value"])
        title, message = header["value"]["summary"], header["value"].get("description", "")
        made = repo.add(parent.oid, tree, title, message, author)
        url = f"{request.base_url}/{repo.type}s/{repo.id}"
        reply = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}", "hookOutput": ""}
        if as_request:
            number = open_with(repo, made, title, author, "open").number
            reply["pullRequestUrl"] = f"{url}/discussions/{number}"
        else:
            _move(repo, revision, made.oid)
    return answer(reply)


def _apply(server: "HubServer", tree: Tree, key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    match key:
        case "file":
            content = value["content"]
            tree[path] = in_git(decoded(content) if value.get("encoding") == "base64" else content.encode())
        case "lfsFile":
            tree[path] = _large_entry(server, path, value)
        case "deletedFile":
            if path not in tree:
                raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
            del tree[path]
        case "deletedFolder":
            for below in [each for each in tree if each.startswith(f"{path.rstrip('/')}/")]:
                del tree[below]
        case _:
            raise RefusalError(400, f"unknown operation {key}")


def _large_entry(server: "HubServer", path: str, value: dict[str, Any]) -> Entry:
    """A pointer is only accepted to what has been uploaded, by whichever way."""
    found = server.storage.find_xet(value["oid"])
    if found is not None:
        return large(value["oid"], found[1], found[0])
    if not server.storage.has_lfs(value["oid"]):
        raise RefusalError(
            400, f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {path}"
        )
    return large(value["oid"], (server.storage.lfs / value["oid"]).stat().st_size)


def _move(repo: Repo, revision: str, oid: str) -> None:
    """Let a branch, or a pull request's branch, point to a new commit."""
    if revision in repo.branches:
        repo.branches[revision] = oid
    elif revision.startswith("refs/pr/"):
        repo.pull_requests[int(revision.rsplit("/", 1)[1]) - 1].head = oid
    else:
        raise RefusalError(400, f"cannot commit on {revision}: it is no branch")
