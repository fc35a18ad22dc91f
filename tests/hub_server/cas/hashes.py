"""A Xet hash in bytes and in words: https://huggingface.co/docs/xet/api (converting hashes to strings)."""

import struct

_WORDS = struct.Struct("<4Q")
_DEDUP_MODULUS = 1024  # https://huggingface.co/docs/xet/deduplication: one chunk in so many is asked for


def text_of(digest: bytes) -> str:
    """Four little-endian words of 64 bits, each in 16 hex digits: not the digest's own hex form."""
    return "".join(f"{word:016x}" for word in _WORDS.unpack(digest))


def is_asked_for(digest: bytes) -> bool:
    """Whether clients ask for a chunk wherever it stands in a file; the first of a file they always ask for."""
    return _WORDS.unpack(digest)[3] % _DEDUP_MODULUS == 0
