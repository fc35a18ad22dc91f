"""Routes of a download: of what a file is made and where that is, then bytes of xorbs from URLs that need no token.

https://huggingface.co/docs/xet/file-reconstruction
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.hub_server.cas.access import check_token
from tests.hub_server.cas.shards import ListedFile, Term
from tests.hub_server.messages import RefusalError, Reply, Request, answer

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer


def reconstruction(server: "HubServer", request: Request) -> Reply:
    """The terms of a file, or of the `Range` of it, and for each xorb among them its URL and ranges of bytes."""
    check_token(server, request, "read")
    is_second = request.parts["version"] == "2"
    file = server.cas.files.get(request.parts["hash"])
    if file is None or (is_second and not server.knows_v2):
        raise RefusalError(404, "no such file, or no such route")
    first, last = request.span or (0, None)
    end = file.n_bytes if last is None else min(last + 1, file.n_bytes)
    if first is None or first >= end:
        return Reply(416, b"", {"Content-Range": f"bytes */{file.n_bytes}"})
    terms, offset = _terms_of(server, file, first, end)
    told: dict[str, Any] = {"offset_into_first_range": offset, "terms": [_told(term) for term in terms]}
    ranges = {xorb: list(_ranges(server, xorb, terms)) for xorb in {term.xorb for term in terms}}
    if is_second:
        told["xorbs"] = {
            xorb: [{"url": _url(server, xorb), "ranges": [{"chunks": chunks, "bytes": span} for chunks, span in each]}]
            for xorb, each in ranges.items()
        }
    else:
        told["fetch_info"] = {
            xorb: [{"url": _url(server, xorb), "range": chunks, "url_range": span} for chunks, span in each]
            for xorb, each in ranges.items()
        }
    return answer(told)


def get_xorb(server: "HubServer", request: Request) -> Reply:
    """One range of a xorb, as a bucket gives it to whoever has the signed URL."""
    xorb, span = request.parts["hash"], request.span
    if request.query.get("signature") != _signature(xorb) or not server.cas.has_xorb(xorb):
        raise RefusalError(403, "not a URL of this store")
    path = server.cas.xorbs / xorb
    n_bytes = path.stat().st_size
    if span is None or span[0] is None or span[1] is None or not 0 <= span[0] <= span[1] < n_bytes:
        return Reply(416, b"", {"Content-Range": f"bytes */{n_bytes}"})
    first, last = span
    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {first}-{last}/{n_bytes}"}
    return Reply(206, b"", headers, path, (first, last - first + 1))


def _terms_of(server: "HubServer", file: ListedFile, first: int, end: int) -> tuple[list[Term], int]:
    """The terms that hold the bytes `first` to before `end`, cut to whole chunks; where in them `first` is."""
    terms: list[Term] = []
    at, offset = 0, None
    for term in file.terms:
        chunks = server.cas.chunks_of(term.xorb)
        kept: list[tuple[int, int]] = []
        for number in range(term.first, term.end):
            if at < end and at + chunks[number].n_bytes > first:
                offset = first - at if offset is None else offset
                kept.append((number, chunks[number].n_bytes))
            at += chunks[number].n_bytes
        if kept:
            terms.append(replace(term, n_bytes=sum(n for _, n in kept), first=kept[0][0], end=kept[-1][0] + 1))
    return terms, offset or 0


def _ranges(server: "HubServer", xorb: str, terms: list[Term]) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Of one xorb the ranges of chunks that are needed, joined where they touch, and the bytes where each stands."""
    chunks = server.cas.chunks_of(xorb)
    joined: list[list[int]] = []
    for first, end in sorted((term.first, term.end) for term in terms if term.xorb == xorb):
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([first, end])
    for first, end in joined:
        yield {"start": first, "end": end}, {"start": chunks[first].start, "end": chunks[end - 1].end - 1}


def _told(term: Term) -> dict[str, Any]:
    return {"hash": term.xorb, "unpacked_length": term.n_bytes, "range": {"start": term.first, "end": term.end}}


def _url(server: "HubServer", xorb: str) -> str:
    return f"{server.url}/xorb-downloads/{xorb}?signature={_signature(xorb)}"


def _signature(xorb: str) -> str:
    return xorb[::-1][:16]  # whoever has the URL may read; nobody else guesses it by mistake
