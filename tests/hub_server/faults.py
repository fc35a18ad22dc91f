"""What goes wrong on purpose: a status, a connection that is dropped, bytes that are missing, or a callback.

Each at the n-th call of a route.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.hub_server.messages import Reply

DROP = "drop"  # the connection ends before anything was done
DROP_AFTER = "drop after"  # it was done, and the client is never told
DROP_HALFWAY = "drop halfway"  # the connection ends while the client still sends, half of the body unread
CUT = "cut"  # it was done, and half of the answer arrives before the connection ends
SHORT = "short"  # it was done, and half of the answer arrives as if it were all of it
_PAGE = b"<html><body><h1>something is wrong</h1></body></html>"  # a proxy's page: not JSON, as from the real one


@dataclass(slots=True)
class Fault:
    """`what` at the calls number `first` to `first + times - 1`, counted from 1, of a route, or of all if it is "*".

    A callable is called when the request has arrived and before the route acts, which then acts as usual unless a
    `RefusalError` was raised.
    """

    route: str
    what: int | str | Callable[[], object]
    first: int = 1
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict[str, str])
    n_calls: int = 0
    n_hits: int = 0

    def strikes(self, route: str) -> bool:
        """Count one call of `route`; whether this one is hit."""
        if self.route not in ("*", route):
            return False
        self.n_calls += 1
        is_hit = self.first <= self.n_calls < self.first + self.times
        self.n_hits += is_hit
        return is_hit

    def reply(self) -> Reply | None:
        """What is answered instead of the route's own reply, if this fault is a status."""
        if not isinstance(self.what, int):
            return None
        return Reply(self.what, _PAGE, {"Content-Type": "text/html", **self.headers})
