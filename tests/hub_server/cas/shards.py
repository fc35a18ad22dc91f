"""A shard, Xet's list of files and xorbs in entries of 48 bytes: https://huggingface.co/docs/xet/shard."""

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.hub_server.cas.hashes import text_of
from tests.hub_server.cas.xorbs import MalformedError

_TAG = b"HFRepoMetaData\0" + bytes([85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169])
_HEADER = struct.Struct("<32sQQ")  # tag, version, bytes of the footer
_VERSION, _FOOTER_VERSION, _FOOTER_BYTES = 2, 1, 200
_ENTRY = struct.Struct("<32sIIII")
_BOOKEND = _ENTRY.pack(b"\xff" * 32, 0, 0, 0, 0)
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30
_IS_ASKED_FOR = 1 << 31
_VALID_S = 3600


@dataclass(frozen=True, slots=True)
class Term:
    """A stretch of a file: the chunks `first` to before `end` of a xorb, `n_bytes` of them when unpacked."""

    xorb: str
    n_bytes: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file by its Xet hash, and of what it is made; `sha256` is None where its client did not say."""

    xet_hash: str
    terms: tuple[Term, ...]
    sha256: str | None

    @property
    def n_bytes(self) -> int:
        """Of the whole file."""
        return sum(term.n_bytes for term in self.terms)


@dataclass(frozen=True, slots=True)
class ListedXorb:
    """A xorb: the hash and flags of each of its chunks; `entries` are those that stand in the shard, as they stand."""

    xorb: str
    chunks: tuple[tuple[bytes, int], ...]
    entries: bytes

    @property
    def asked_for(self) -> list[bytes]:
        """Hashes of the chunks that its client marked as those others will ask for."""
        return [digest for digest, flags in self.chunks if flags & _IS_ASKED_FOR]


def read_shard(shard: bytes) -> tuple[list[ListedFile], list[ListedXorb]]:
    """Its two sections; what may follow them is not needed. Raises `MalformedError`."""
    if len(shard) < _HEADER.size:
        raise MalformedError(f"a shard of {len(shard)} bytes")
    tag, version, _ = _HEADER.unpack_from(shard)
    if tag != _TAG or version != _VERSION:
        raise MalformedError("no shard, or one of an unknown version")
    entries = _Entries(shard)
    return list(entries.files()), list(entries.xorbs())


class _Entries:
    """The entries of a shard, one after the other."""

    def __init__(self, shard: bytes) -> None:
        self.shard, self.at = shard, _HEADER.size

    def take(self) -> tuple[bytes, int, int, int, int]:
        if self.at + _ENTRY.size > len(self.shard):
            raise MalformedError("a shard that ends too early")
        entry = _ENTRY.unpack_from(self.shard, self.at)
        self.at += _ENTRY.size
        return entry

    def files(self) -> Iterator[ListedFile]:
        while (header := self.take())[0] != b"\xff" * 32:
            digest, flags, n_terms = header[:3]
            found = [self.take() for _ in range(n_terms)]
            terms = tuple(Term(text_of(xorb), n_bytes, first, end) for xorb, _, n_bytes, first, end in found)
            for _ in range(n_terms if flags & _HAS_VERIFICATION else 0):
                self.take()
            sha256 = text_of(self.take()[0]) if flags & _HAS_SHA256 else None
            yield ListedFile(text_of(digest), terms, sha256)

    def xorbs(self) -> Iterator[ListedXorb]:
        while True:
            start = self.at
            digest, _, n_chunks, _, _ = self.take()
            if digest == b"\xff" * 32:
                return
            chunks = tuple((entry[0], entry[3]) for entry in [self.take() for _ in range(n_chunks)])
            yield ListedXorb(text_of(digest), chunks, self.shard[start : self.at])


def write_answer(xorbs: list[ListedXorb]) -> bytes:
    """A shard that tells a client which chunks are here: xorbs alone, and the footer that an answer needs.

    Its hashes stand plain, under a key of zeros; the real store gives them keyed, so that nobody can collect them.
    """
    section = b"".join(xorb.entries for xorb in xorbs)
    files_at = _HEADER.size
    xorbs_at = files_at + len(_BOOKEND)
    end = xorbs_at + len(section) + len(_BOOKEND)
    now = int(time.time())
    tables = [end, 0] * 3  # of files, xorbs, chunks: optional, and empty
    footer = struct.pack("<9Q32sQQ", _FOOTER_VERSION, files_at, xorbs_at, *tables, bytes(32), now, now + _VALID_S)
    footer += bytes(_FOOTER_BYTES - len(footer) - 8) + struct.pack("<Q", end)
    return _HEADER.pack(_TAG, _VERSION, _FOOTER_BYTES) + _BOOKEND + section + _BOOKEND + footer
