"""Large files on disk: those that came as LFS under their sha256, those that came over Xet in a chunk store."""

import hashlib
import importlib
import shutil
import struct
from collections.abc import Iterable
from itertools import count
from pathlib import Path

_NUMBERS = count()
# A shard's file entries, of 48 bytes each: https://github.com/huggingface/xet-core (mdb_shard: file_structs.rs)
_HEADER, _ENTRY, _END = 48, 48, b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30


class Storage:
    """The files of all repositories, shared as on the Hub. `folder` is given to Xet clients as `local://` store."""

    def __init__(self, folder: Path) -> None:
        self.lfs = folder / "lfs"
        self.xet = folder / "xet"
        self.lfs.mkdir(parents=True)
        self.xet.mkdir()

    @property
    def xet_bytes(self) -> int:
        """What clients had to send: blocks of new chunks, compressed, and the lists of what makes which file."""
        blocks = [*self.xet.glob("xet/xorbs/xorbs/default.*"), *self.xet.glob("xet/xorbs/shards/*.mdb")]
        return sum(path.stat().st_size for path in blocks if path.suffix != ".tagset")

    def forget_clients(self) -> None:
        """Remove what `local://` clients keep here of their own uploads: the next one is as on a new machine."""
        shutil.rmtree(self.xet / "xet" / "shard-cache", ignore_errors=True)

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
        for shard in sorted(self.xet.rglob("*.mdb")):
            found = _files_in(shard.read_bytes()).get(sha256)
            if found is not None:
                return found
        return None

    def path_of(self, sha256: str, xet_hash: str | None, size: int) -> Path:
        """A file's bytes on disk; what came over Xet is put together again, as the Hub's bridge does for HTTP."""
        path = self.lfs / sha256
        if not path.is_file() and xet_hash is not None:
            part = self.lfs / f"{sha256}.{next(_NUMBERS)}.part"
            hf_xet = importlib.import_module("hf_xet")  # compiled, without types
            session = hf_xet.XetSession()
            with session.new_file_download_group(endpoint=f"local://{self.xet}") as group:
                group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(part))
            part.replace(path)
        return path


def _files_in(shard: bytes) -> dict[str, tuple[str, int]]:
    """sha256 -> (Xet hash, size) of every file that a shard lists."""
    found: dict[str, tuple[str, int]] = {}
    at = _HEADER
    while at + _ENTRY <= len(shard):
        file_hash, flags, n_segments = struct.unpack_from("<32sII", shard, at)
        at += _ENTRY
        if file_hash == _END:
            break
        size = sum(struct.unpack_from("<I", shard, at + _ENTRY * segment + 36)[0] for segment in range(n_segments))
        at += _ENTRY * n_segments
        if flags & _HAS_VERIFICATION:
            at += _ENTRY * n_segments
        if flags & _HAS_SHA256:
            found[_hex(shard[at : at + 32])] = (_hex(file_hash), size)
            at += _ENTRY
    return found


def _hex(digest: bytes) -> str:
    """A hash as Xet writes it: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))
