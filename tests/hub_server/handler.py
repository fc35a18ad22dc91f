"""HTTP/1.1 on one connection: find the route by its raw path, run it, or break on purpose."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.hub_server.faults import CUT, DROP, DROP_AFTER, DROP_HALFWAY, SHORT
from tests.hub_server.messages import Call, RefusalError, Reply, Request, parse_query, unquoted
from tests.hub_server.routes import find_route

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

_BLOCK = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """One connection; keeps it open between requests as the clients expect."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "HubServer"  # pyright: ignore[reportIncompatibleVariableOverride] - the base class knows any server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent; `HubServer.calls` has it all."""

    def do_GET(self) -> None:
        """Every method goes the same way."""
        with self.server.is_idle:
            self.server.n_in_work += 1
        try:
            self._answer()
        finally:
            with self.server.is_idle:
                self.server.n_in_work -= 1
                self.server.is_idle.notify_all()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        name, act, parts = find_route(self.command, path)
        fault = self.server.struck(name)
        blocks = self._blocks()
        if fault is not None and callable(fault.what):
            blocks = iter([b"".join(blocks)])  # it is called when the whole request has arrived
        headers = {key.lower(): value for key, value in self.headers.items()}
        query = parse_query(urlsplit(self.path).query)
        request = Request(self.command, self.server.url, path, query, headers, unquoted(parts), blocks)
        reply = fault.reply() if fault is not None else None
        what = None if fault is None else fault.what
        if what == DROP_HALFWAY:
            blocks = iter([self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)])
        try:
            if callable(what):
                what()
            if reply is None and what not in (DROP, DROP_HALFWAY):
                reply = act(self.server, request)
        except RefusalError as refusal:
            reply = refusal.reply
        for _ in blocks:
            pass  # what the route did not read stands before the next request
        dropped = what in (DROP, DROP_AFTER, DROP_HALFWAY)
        status = 0 if dropped or reply is None else reply.status
        with self.server.lock:
            self.server.calls.append(Call(name, self.command, self.path, status, request.token))
        if dropped or reply is None:
            self._drop()
        elif what == SHORT:
            self._send(reply, reply.n_bytes // 2, reply.n_bytes // 2)
        elif what == CUT:
            self._send(reply, reply.n_bytes, reply.n_bytes // 2)
            self._drop()
        else:
            self._send(reply, reply.n_bytes, reply.n_bytes)

    def _blocks(self) -> Iterator[bytes]:
        """The body, with a length or chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while n_bytes := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(n_bytes)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0 and (block := self.rfile.read(min(left, _BLOCK))):
            left -= len(block)
            yield block

    def _send(self, reply: Reply, n_told: int, n_sent: int) -> None:
        """Of the body `n_sent` bytes, and that it has `n_told`."""
        self.send_response(reply.status)
        for key, value in {"Content-Length": str(n_told), **reply.headers}.items():
            self.send_header(key, value.encode("ascii", "replace").decode())
        self.end_headers()
        if self.command == "HEAD":
            return
        if reply.file is None:
            self.wfile.write(reply.body[:n_sent])
            return
        first, left = reply.span[0], n_sent
        with reply.file.open("rb") as file:
            file.seek(first)
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                left -= len(block)
                self.wfile.write(block)

    def _drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
