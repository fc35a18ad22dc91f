"""Route: where the chunk store is, and a token for it."""

import time
from typing import TYPE_CHECKING

from tests.hub_server.messages import Reply, Request, answer
from tests.hub_server.repositories import repo_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

TOKEN_S = 3600


def token(server: "HubServer", request: Request) -> Reply:
    """The store is this server itself; what the token is good for depends on who asks for it.

    https://huggingface.co/docs/xet/auth
    """
    repo = repo_of(server, request)
    if request.parts["kind"] == "write":
        server.access.check_writes(request, repo, request.is_set("create_pr"))
    else:
        server.access.check_reads(request, repo)
    url, value = server.url, server.cas.new_token(request.parts["kind"])
    until = int(time.time()) + TOKEN_S
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": value, "X-Xet-Token-Expiration": str(until)}
    return answer({"casUrl": url, "accessToken": value, "exp": until}, headers=headers)
