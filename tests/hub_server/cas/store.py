"""What the store holds: xorbs and shards on disk, and by which hash each file, chunk and grant is found."""

import hashlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server.cas.hashes import is_asked_for
from tests.hub_server.cas.shards import ListedFile, ListedXorb, Term, read_shard, write_answer
from tests.hub_server.cas.xorbs import Chunk, MalformedError, read_chunks, unpack


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to send one xorb to a URL of its own."""

    xorb: str
    n_bytes: int
    checksum: int


class Store:
    """The store under `folder`. A file is known once a shard lists it and its bytes have been put together and hashed.

    Of a xorb the form, the length and, with a grant, the checksum are looked at, not its BLAKE3 hash, for which Python
    has no module of its own: a wrong one is found when a file made of it has another sha256.
    """

    def __init__(self, folder: Path) -> None:
        self.xorbs, self.shards, self.uploads = folder / "xorbs", folder / "shards", folder / "uploads"
        for each in (self.xorbs, self.shards, self.uploads):
            each.mkdir(parents=True)
        self.files: dict[str, ListedFile] = {}
        self.by_sha256: dict[str, str] = {}
        self.grants: dict[str, Grant] = {}
        self.tokens: dict[str, str] = {}
        self._chunks: dict[str, list[Chunk]] = {}
        self._answers: dict[bytes, list[ListedXorb]] = {}
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget everything but the tokens."""
        with self._lock:
            for known in (self.files, self.by_sha256, self.grants, self._chunks, self._answers):
                known.clear()
            for folder in (self.xorbs, self.shards, self.uploads):
                for path in folder.iterdir():
                    path.unlink()

    @property
    def n_bytes(self) -> int:
        """What clients had to send: xorbs as they came, compressed, and the lists of what makes which file."""
        return sum(path.stat().st_size for folder in (self.xorbs, self.shards) for path in folder.iterdir())

    def new_token(self, scope: str) -> str:
        """A token of the store's own, good for `scope`: `read` or `write`. It is not the account's."""
        token = f"xet_{scope}_{secrets.token_hex(16)}"
        self.tokens[token] = scope
        return token

    def new_grant(self, grant: Grant) -> str:
        """The name under which the xorb may be sent."""
        name = secrets.token_hex(16)
        self.grants[name] = grant
        return name

    def has_xorb(self, xorb: str) -> bool:
        """Whether it is here, whole."""
        return xorb in self._chunks

    def put_xorb(self, xorb: str, content: bytes) -> bool:
        """Store a xorb; False if it was here already. Raises `MalformedError` where it is none."""
        chunks = read_chunks(content)
        with self._lock:
            if self.has_xorb(xorb):
                return False
            self._write(self.xorbs / xorb, content)
            self._chunks[xorb] = chunks
            return True

    def chunks_of(self, xorb: str) -> list[Chunk]:
        """The chunks of a xorb that is here; `MalformedError` if it is not."""
        if xorb not in self._chunks:
            raise MalformedError(f"there is no xorb {xorb}")
        return self._chunks[xorb]

    def put_shard(self, content: bytes) -> bool:
        """Register all files of a shard, or none; False if it was here already.

        Raises `MalformedError` where a xorb is missing or the bytes of a file have another sha256.
        """
        files, xorbs = read_shard(content)
        for xorb in xorbs:
            if len(self.chunks_of(xorb.xorb)) != len(xorb.chunks):
                raise MalformedError(f"xorb {xorb.xorb} has another number of chunks")
        for file in files:
            digest = hashlib.sha256()
            for block in self.blocks(file):
                digest.update(block)
            if file.sha256 not in (None, digest.hexdigest()):
                raise MalformedError(f"file {file.xet_hash} has another sha256 than its shard says")
        path = self.shards / hashlib.sha256(content).hexdigest()
        with self._lock:
            is_new = not path.exists()
            self._write(path, content)
            for file in files:
                self.files[file.xet_hash] = file
                if file.sha256 is not None:
                    self.by_sha256[file.sha256] = file.xet_hash
            self._remember(files, xorbs)
        return is_new

    def _remember(self, files: list[ListedFile], xorbs: list[ListedXorb]) -> None:
        """Which chunks are answered for, with all xorbs of their shard: the first of each file, and one in 1,024."""
        here = {xorb.xorb: xorb for xorb in xorbs}
        firsts = [(here[term.xorb], term.first) for file in files for term in file.terms[:1] if term.xorb in here]
        digests = [xorb.chunks[first][0] for xorb, first in firsts]
        for xorb in xorbs:
            digests += [digest for digest, _ in xorb.chunks if is_asked_for(digest)] + xorb.asked_for
        self._answers |= dict.fromkeys(digests, xorbs)

    def answer_for(self, chunk: str) -> bytes | None:
        """A shard with that chunk in it; None if it is not one of those that are answered for."""
        digest = b"".join(bytes.fromhex(chunk[at : at + 16])[::-1] for at in range(0, 64, 16))
        xorbs = self._answers.get(digest)
        return None if xorbs is None else write_answer(xorbs)

    def blocks(self, file: ListedFile) -> Iterator[bytes]:
        """A file's bytes, term by term."""
        for term in file.terms:
            content = b"".join(self._unpacked(term))
            if len(content) != term.n_bytes:
                raise MalformedError(f"a term of {len(content)} bytes that says it has {term.n_bytes}")
            yield content

    def _unpacked(self, term: Term) -> Iterator[bytes]:
        chunks = self.chunks_of(term.xorb)
        if not 0 <= term.first < term.end <= len(chunks):
            raise MalformedError(f"xorb {term.xorb} has no chunks {term.first} to {term.end}")
        xorb = (self.xorbs / term.xorb).read_bytes()
        for chunk in chunks[term.first : term.end]:
            yield unpack(xorb, chunk)

    def _write(self, path: Path, content: bytes) -> None:
        part = self.uploads / f"{secrets.token_hex(8)}.part"
        part.write_bytes(content)
        part.replace(path)
