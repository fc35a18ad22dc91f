"""Who may use the store: the holder of a token that the Hub gave for it, https://huggingface.co/docs/xet/auth."""

from typing import TYPE_CHECKING

from tests.hub_server.messages import RefusalError, Request

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def check_token(server: "HubServer", request: Request, scope: str) -> None:
    """Raise unless the token is one of the store's, good for `scope`; one for writing is good for reading."""
    found = server.cas.tokens.get(request.token)
    if found is None:
        raise RefusalError(401, "no token of this store")
    if found not in (scope, "write"):
        raise RefusalError(403, f"a token to {found}")
