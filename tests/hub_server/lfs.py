"""Routes of Git LFS, for clients without Xet: ask what is missing, then send it whole or in parts."""

import hashlib
from typing import TYPE_CHECKING, Any

from tests.hub_server.messages import RefusalError, Reply, Request, answer
from tests.hub_server.repositories import repo_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def batch(server: "HubServer", request: Request) -> Reply:
    """Where to send each object; no actions for those that are here."""
    server.access.check_writes(request, repo_of(server, request), pull_request=True)
    wish = request.json()
    objects = [_object(server, each) for each in wish["objects"]]
    transfer = "multipart" if server.part_bytes is not None and "multipart" in wish["transfers"] else "basic"
    reply = answer({"transfer": transfer, "objects": objects})
    return Reply(200, reply.body, {"Content-Type": "application/vnd.git-lfs+json"})


def _object(server: "HubServer", wanted: dict[str, Any]) -> dict[str, Any]:
    sha256, size = wanted["oid"], wanted["size"]
    if server.storage.has_lfs(sha256) or server.storage.find_xet(sha256) is not None:
        return {"oid": sha256, "size": size}
    upload: dict[str, Any] = {"href": f"{server.url}/lfs/{sha256}"}
    if server.part_bytes is not None and size > server.part_bytes:
        n_parts = -(-size // server.part_bytes)
        urls = {str(number): f"{server.url}/lfs/{sha256}/{number}" for number in range(1, n_parts + 1)}
        header = {"chunk_size": str(server.part_bytes), **urls}
        upload = {"href": f"{server.url}/lfs/{sha256}/complete", "header": header}
    return {"oid": sha256, "size": size, "actions": {"upload": upload, "verify": {"href": f"{server.url}/lfs/verify"}}}


def put(server: "HubServer", request: Request) -> Reply:
    """A whole object."""
    if not server.storage.put_lfs(request.parts["sha256"], request.blocks):
        raise RefusalError(400, "these bytes have another sha256")
    return Reply()


def put_part(server: "HubServer", request: Request) -> Reply:
    """One part; its ETag is asked for at the end."""
    content = request.body()
    server.storage.put_part(request.parts["sha256"], int(request.parts["number"]), content)
    return Reply(headers={"ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'})


def complete(server: "HubServer", request: Request) -> Reply:
    """All parts are there: make one object of them."""
    numbers = [part["partNumber"] for part in request.json()["parts"]]
    if not server.storage.join_parts(request.parts["sha256"], numbers):
        raise RefusalError(400, "these parts do not make that object")
    return answer({"success": True})


def verify(server: "HubServer", request: Request) -> Reply:
    """Whether an object has arrived, with its size."""
    wish = request.json()
    path = server.storage.lfs / wish["oid"]
    if not path.is_file() or path.stat().st_size != wish["size"]:
        raise RefusalError(404, "not found")
    return answer({})
