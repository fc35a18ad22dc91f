"""A xorb, Xet's block of chunks, each compressed behind a header of its own: https://huggingface.co/docs/xet/xorb."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_HEADER = 8  # version, compressed length (3 bytes), compression, length (3 bytes)
_FOOTER = b"XETBLOB"  # what may follow the chunks; the stock wheel leaves it out
_MAX_CHUNK_BYTES = 128 * 1024
_STORED, _LZ4, _GROUPED_LZ4 = 0, 1, 2


class MalformedError(ValueError):
    """Bytes that are no xorb, no shard, or do not make the file they are said to make."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk is in its xorb, with its header: from `start` to before `end`; its length when it is unpacked."""

    start: int
    end: int
    compression: int
    n_bytes: int


def read_chunks(xorb: bytes) -> list[Chunk]:
    """The chunks in their order. Raises `MalformedError` where a header or a length is wrong."""
    chunks: list[Chunk] = []
    at = 0
    while at < len(xorb) and xorb[at : at + len(_FOOTER)] != _FOOTER:
        version, compression = xorb[at], xorb[at + 4] if at + _HEADER <= len(xorb) else -1
        n_packed = int.from_bytes(xorb[at + 1 : at + 4], "little")
        n_bytes = int.from_bytes(xorb[at + 5 : at + 8], "little")
        end = at + _HEADER + n_packed
        is_known = version == 0 and compression in (_STORED, _LZ4, _GROUPED_LZ4)
        if not is_known or end > len(xorb) or not 0 < n_bytes <= _MAX_CHUNK_BYTES:
            raise MalformedError(f"no chunk begins at byte {at} of this xorb of {len(xorb)} bytes")
        chunks.append(Chunk(at, end, compression, n_bytes))
        at = end
    if not chunks:
        raise MalformedError("a xorb without chunks")
    return chunks


def unpack(xorb: bytes, chunk: Chunk) -> bytes:
    """A chunk's bytes as they are in the file."""
    packed = xorb[chunk.start + _HEADER : chunk.end]
    if chunk.compression == _STORED:
        content = packed
    else:
        try:
            content = pa.decompress(packed, chunk.n_bytes, codec="lz4", asbytes=True)
        except (OSError, pa.ArrowException) as error:
            raise MalformedError(f"a chunk cannot be decompressed: {error}") from error
    if len(content) != chunk.n_bytes:
        raise MalformedError(f"a chunk of {len(content)} bytes that says it has {chunk.n_bytes}")
    return _ungrouped(content) if chunk.compression == _GROUPED_LZ4 else content


def _ungrouped(content: bytes) -> bytes:
    """Undo "byte grouping": first each fourth byte from the first on, then each fourth from the second on, …"""
    grouped = np.frombuffer(content, np.uint8)
    plain, at = np.empty_like(grouped), 0
    for first in range(4):
        n_bytes = len(plain[first::4])
        plain[first::4] = grouped[at : at + n_bytes]
        at += n_bytes
    return plain.tobytes()
