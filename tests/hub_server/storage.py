"""Large files on disk: those that came as LFS under their sha256, those that came over Xet in its chunk store."""

import hashlib
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from tests.hub_server.cas.store import Store

_NUMBERS = count()


class Storage:
    """The files of all repositories, shared as on the Hub."""

    def __init__(self, folder: Path, cas: Store) -> None:
        self.lfs, self.cas = folder / "lfs", cas
        self.lfs.mkdir(parents=True)

    @property
    def xet_bytes(self) -> int:
        """What clients had to send: blocks of new chunks, compressed, and the lists of what makes which file."""
        return self.cas.n_bytes

    def has_lfs(self, sha256: str) -> bool:
        """Whether the whole file is here."""
        return (self.lfs / sha256).is_file()

    def put_lfs(self, sha256: str, blocks: Iterable[bytes]) -> bool:
        """Store a file; False, and nothing is stored, where its bytes have another hash."""
        part = self.lfs / f"{sha256}.{next(_NUMBERS)}.part"
        digest = hashlib.sha256()
        with part.open("wb") as file:
            for block in blocks:
                file.write(block)
                digest.update(block)
        if digest.hexdigest() != sha256:
            part.unlink()
            return False
        part.replace(self.lfs / sha256)
        return True

    def put_part(self, sha256: str, number: int, content: bytes) -> None:
        """Store one part of a multipart upload, until `join_parts`."""
        (self.lfs / f"{sha256}.{number}").write_bytes(content)

    def join_parts(self, sha256: str, numbers: list[int]) -> bool:
        """Make one file of its parts; False where they do not make it. They stay, for a client that asks again."""
        parts = [self.lfs / f"{sha256}.{number}" for number in numbers]
        return all(part.is_file() for part in parts) and self.put_lfs(sha256, (part.read_bytes() for part in parts))

    def find_xet(self, sha256: str) -> tuple[str, int] | None:
        """The Xet hash and size of a file that clients have uploaded over Xet; None if there is none."""
        xet_hash = self.cas.by_sha256.get(sha256)
        return None if xet_hash is None else (xet_hash, self.cas.files[xet_hash].n_bytes)

    def path_of(self, sha256: str, xet_hash: str | None) -> Path:
        """A file's bytes on disk; what came over Xet is put together again, as the Hub's bridge does for HTTP."""
        path = self.lfs / sha256
        if not path.is_file() and xet_hash is not None:
            assert self.put_lfs(sha256, self.cas.blocks(self.cas.files[xet_hash]))
        return path
