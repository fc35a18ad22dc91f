"""A request as a route sees it, a reply as it gives it, and the errors in the Hub's form."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. `file` with `span` (first byte, length) is sent from disk instead of `body`."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    file: Path | None = None
    span: tuple[int, int] = (0, 0)

    @property
    def n_bytes(self) -> int:
        """Of what follows the headers."""
        return len(self.body) if self.file is None else self.span[1]


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is raw, so `refs%2Fpr%2F1` stays one segment; `parts` are what the route's pattern caught, unquoted."""

    method: str
    base_url: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    parts: dict[str, str]
    blocks: Iterator[bytes]

    def body(self) -> bytes:
        """All of the body; a route that stores a large one walks through `blocks` instead."""
        return b"".join(self.blocks)

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object."""
        return json.loads(self.body() or b"{}")

    def form(self) -> dict[str, list[str]]:
        """The body as a form, or JSON of the same keys: `paths-info` is asked in both ways."""
        if "json" in self.headers.get("content-type", ""):
            return {key: value if isinstance(value, list) else [str(value)] for key, value in self.json().items()}
        return parse_qs(self.body().decode())

    def is_set(self, name: str) -> bool:
        """Whether a query parameter says yes."""
        return self.query.get(name, "").lower() in ("1", "true")

    @property
    def token(self) -> str:
        """The bearer's token; "" if there is none."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value if kind == "Bearer" else ""

    @property
    def span(self) -> tuple[int | None, int | None] | None:
        """`Range` as (first, last), either of them open; None if there is none."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        return None if found is None else (int(found[1]) if found[1] else None, int(found[2]) if found[2] else None)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that arrived, by the name of its route; `status` is 0 where the connection was dropped."""

    route: str
    method: str
    path: str
    status: int
    token: str


def parse_query(query: str) -> dict[str, str]:
    """The last value of each parameter of a query string."""
    return {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}


def unquoted(parts: dict[str, str | None]) -> dict[str, str]:
    """What a pattern caught, decoded; groups that took no part are left out."""
    return {name: unquote(value) for name, value in parts.items() if value is not None}


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """`value` as JSON."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


class RefusalError(Exception):
    """Ends a request with an error; `code` is the Hub's `X-Error-Code`, which the clients turn into exceptions."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        named = {"X-Error-Code": code} if code else {}
        self.reply = answer({"error": message}, status, {"X-Error-Message": message, **named, **headers})


def decoded(value: str) -> bytes:
    """Base64 as the clients send it."""
    return base64.b64decode(value)
