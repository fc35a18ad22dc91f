"""Work in pieces: what bounds the memory of matrix products."""

from collections.abc import Iterator


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover `range(n)`; the last may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
