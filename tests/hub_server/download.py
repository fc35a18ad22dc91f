"""Route: one file's bytes, whole or in ranges, with the headers that caches and Xet clients go by."""

from typing import TYPE_CHECKING

from tests.hub_server.messages import RefusalError, Reply, Request
from tests.hub_server.repos import Entry
from tests.hub_server.repositories import repo_of, revision_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def resolve(server: "HubServer", request: Request) -> Reply:
    """A missing file still tells the commit: `datasets` looks for several that need not be there."""
    repo = server.access.check_reads(request, repo_of(server, request))
    commit = revision_of(repo, request.parts["revision"])
    entry = commit.tree.get(request.parts["path"])
    if entry is None:
        raise RefusalError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
    name = request.parts["path"].rsplit("/", 1)[-1]
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'inline; filename="{name}"',
        "Accept-Ranges": "bytes",
        "X-Repo-Commit": commit.oid,
        "ETag": f'"{entry.sha256 or entry.oid}"',
    }
    if entry.sha256 is not None:
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": f'"{entry.sha256}"'}
    if entry.xet_hash is not None:
        route = f"{request.base_url}/api/{repo.type}s/{repo.id}/xet-read-token/{commit.oid}"
        headers |= {"X-Xet-Hash": entry.xet_hash, "Link": f'<{route}>; rel="xet-auth"'}
    if request.method == "HEAD":
        return Reply(200, b"", {**headers, "Content-Length": str(entry.size)})
    return _bytes_of(server, entry, request.span, headers)


def _bytes_of(
    server: "HubServer", entry: Entry, span: tuple[int | None, int | None] | None, headers: dict[str, str]
) -> Reply:
    first, last = _first_and_last(span, entry.size)
    if first >= entry.size and span is not None:
        return Reply(416, b"", {"Content-Range": f"bytes */{entry.size}"})
    status = 200
    if span is not None:
        status = 206
        headers = {**headers, "Content-Range": f"bytes {first}-{last}/{entry.size}"}
    if entry.content is not None:
        return Reply(status, entry.content[first : last + 1], headers)
    assert entry.sha256 is not None
    path = server.storage.path_of(entry.sha256, entry.xet_hash)
    return Reply(status, b"", headers, path, (first, last - first + 1))


def _first_and_last(span: tuple[int | None, int | None] | None, size: int) -> tuple[int, int]:
    if span is None:
        return 0, size - 1
    first, last = span
    if first is None:  # the last so many bytes
        return max(0, size - (last or 0)), size - 1
    return first, size - 1 if last is None else min(last, size - 1)
