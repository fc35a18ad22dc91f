"""Route: who am I."""

from typing import TYPE_CHECKING

from tests.hub_server.messages import RefusalError, Reply, Request, answer

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def whoami(server: "HubServer", request: Request) -> Reply:
    """The user behind the token, its organisations, and the token's role."""
    account = server.access.account(request)
    if account is None:
        raise RefusalError(401, "Invalid username or password.")
    return answer(
        {
            "type": "user",
            "name": account.name,
            "fullname": account.name,
            "isPro": False,
            "orgs": [{"type": "org", "name": name} for name in account.organisations],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}},
        }
    )
