"""Routes of an upload: is this chunk here, may I send this xorb, here it is, and these files are made of them.

https://huggingface.co/docs/xet/api, and https://huggingface.co/docs/xet/upload-protocol for their order.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tests.hub_server.cas.access import check_token
from tests.hub_server.cas.crc64 import crc64
from tests.hub_server.cas.store import Grant
from tests.hub_server.cas.xorbs import MalformedError
from tests.hub_server.messages import RefusalError, Reply, Request, answer

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

T = TypeVar("T")
_DEDUP_PREFIXES = ("default-merkledb", "default")  # the one is documented, the other is what the wheel asks with


def chunk(server: "HubServer", request: Request) -> Reply:
    """Global deduplication: a shard that holds this chunk, wherever it was uploaded first."""
    check_token(server, request, "read")
    found = server.cas.answer_for(request.parts["hash"]) if request.parts["prefix"] in _DEDUP_PREFIXES else None
    if found is None:
        raise RefusalError(404, "this chunk is not tracked")
    return Reply(200, found, {"Content-Type": "application/octet-stream"})


def grant(server: "HubServer", request: Request) -> Reply:
    """A URL to send a xorb to, without the store's token; none where the xorb is here. Old stores know no grants."""
    check_token(server, request, "write")
    if not server.knows_grants:
        raise RefusalError(404, "no such route")
    xorb, wish = request.parts["hash"], request.json()
    if server.cas.has_xorb(xorb):
        return answer({}, 200)
    if wish["checksum"]["algo"] != "crc64nvme":
        raise RefusalError(400, "unknown checksum")
    name = server.cas.new_grant(Grant(xorb, wish["length"], int(wish["checksum"]["value"])))
    url = f"{server.url}/xorb-uploads/{name}"
    return answer({"id": name, "method": "PUT", "url": url, "headers": {"x-upload-of": xorb}}, 201)


def put(server: "HubServer", request: Request) -> Reply:
    """The bytes of a granted xorb, as a bucket takes them: with the grant's headers, once, whole, and unread."""
    name = request.parts["grant"]
    granted = server.cas.grants.get(name)
    if granted is None or request.headers.get("x-upload-of") != granted.xorb or request.token:
        raise RefusalError(403, "not what was granted")
    path = server.cas.uploads / name
    if path.exists():
        raise RefusalError(412, "it is here")
    content = request.body()
    if len(content) != granted.n_bytes or crc64(content) != granted.checksum:
        raise RefusalError(400, "not the bytes that were granted")
    path.write_bytes(content)
    return Reply()


def commit(server: "HubServer", request: Request) -> Reply:
    """What was sent under a grant becomes a xorb of the store; 404 where nothing was."""
    check_token(server, request, "write")
    xorb, name = request.parts["hash"], request.parts["grant"]
    granted = server.cas.grants.get(name)
    path = server.cas.uploads / name
    if granted is None or granted.xorb != xorb or not path.exists():
        raise RefusalError(404, "nothing was uploaded")
    return answer({"was_inserted": _checked(lambda: server.cas.put_xorb(xorb, path.read_bytes()))})


def post_xorb(server: "HubServer", request: Request) -> Reply:
    """A xorb, sent to the store itself: documented, and the way of wheels before 1.8."""
    check_token(server, request, "write")
    content = request.body()
    if len(content) != int(request.headers["content-length"]):
        raise RefusalError(400, "the body ended too early")
    return answer({"was_inserted": _checked(lambda: server.cas.put_xorb(request.parts["hash"], content))})


def post_shard(server: "HubServer", request: Request) -> Reply:
    """Files and their xorbs, registered together. Version 2 tells its progress in lines, of which one ends it."""
    check_token(server, request, "write")
    is_second = request.parts["version"] == "2"
    if is_second and not server.knows_v2:
        raise RefusalError(404, "no such route")
    is_new = _checked(lambda: server.cas.put_shard(request.body()))
    if not is_second:
        return answer({"result": int(is_new)})
    lines = [{"type": "validating", "verified": 1, "total": 1}, {"type": "committing", "stage": "syncing"}]
    body = "".join(f"{json.dumps(line)}\n" for line in [*lines, {"type": "result"}])
    return Reply(200, body.encode(), {"Content-Type": "application/x-ndjson"})


def telemetry(server: "HubServer", request: Request) -> Reply:
    """What a wheel says of its own speed; the answer does not matter to it."""
    check_token(server, request, "read")
    return answer({})


def _checked(act: Callable[[], T]) -> T:
    try:
        return act()
    except MalformedError as error:
        raise RefusalError(400, str(error)) from error
