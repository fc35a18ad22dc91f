"""Routes that list files: a folder, or the paths that are named."""

import hashlib
from typing import TYPE_CHECKING, Any

from tests.hub_server.messages import RefusalError, Reply, Request, answer
from tests.hub_server.repos import Commit, Tree
from tests.hub_server.repositories import repo_of, revision_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

PAGE, PAGE_EXPANDED = 1000, 50


def list_tree(server: "HubServer", request: Request) -> Reply:
    """The files and folders below a path, in pages with a `Link` to the next."""
    repo = server.access.check_sees(request, repo_of(server, request))
    commit = revision_of(repo, request.parts["revision"])
    path = request.parts.get("path", "")
    rows = _below(commit.tree, path, request.is_set("recursive"))
    if path and not rows:
        raise RefusalError(404, f'{path} does not exist on "{request.parts["revision"]}"', "EntryNotFound")
    is_expanded = request.is_set("expand")
    start = int(request.query.get("cursor", 0))
    page = rows[start : start + (PAGE_EXPANDED if is_expanded else PAGE)]
    headers: dict[str, str] = {}
    if start + len(page) < len(rows):
        flags = "&".join(f"{name}={str(request.is_set(name)).lower()}" for name in ("recursive", "expand"))
        url = f"{request.base_url}{request.path}?{flags}&cursor={start + len(page)}"
        headers["Link"] = f'<{url}>; rel="next"'
    return answer(_expanded(page, commit) if is_expanded else page, headers=headers)


def paths_info(server: "HubServer", request: Request) -> Reply:
    """The files and folders of these names; those that are not there are left out."""
    repo = server.access.check_sees(request, repo_of(server, request))
    commit = revision_of(repo, request.parts["revision"])
    form = request.form()
    rows: list[dict[str, Any]] = []
    for path in form.get("paths", []):
        if path in commit.tree:
            rows.append(commit.tree[path].listed(path))
        elif any(each.startswith(f"{path.rstrip('/')}/") for each in commit.tree):
            rows.append(_folder(path.rstrip("/")))
    is_expanded = form.get("expand", [""])[0].lower() in ("true", "1")
    return answer(_expanded(rows, commit) if is_expanded else rows)


def _below(tree: Tree, path: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{path}/" if path else ""
    rows: dict[str, dict[str, Any]] = {}
    for each, entry in tree.items():
        if not each.startswith(prefix):
            continue
        folders = each.removeprefix(prefix).split("/")[:-1]
        for depth in range(len(folders) if recursive else min(1, len(folders))):
            folder = prefix + "/".join(folders[: depth + 1])
            rows[folder] = _folder(folder)
        if recursive or not folders:
            rows[each] = entry.listed(each)
    return [rows[name] for name in sorted(rows)]


def _folder(path: str) -> dict[str, Any]:
    oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _expanded(rows: list[dict[str, Any]], commit: Commit) -> list[dict[str, Any]]:
    last = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return [{**row, "lastCommit": last} for row in rows]
