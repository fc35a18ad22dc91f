"""Rows in batches that are halved where the device's memory does not do: for all that is computed without gradients."""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from builders.errors import UserError

T = TypeVar("T")
Tell = Callable[[str], None]


def untold(_: str) -> None:
    """For callers without anybody to tell."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says by `error` that memory does not do: an error of its own on a GPU, words on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def in_batches(
    n_rows: int, batch_size: int, compute: Callable[[slice], T], what: str, tell: Tell = untold
) -> Iterator[tuple[slice, T]]:
    """`compute` on `n_rows` rows, at most `batch_size` at a time; each batch with what it gave, in order.

    Where a batch does not fit in the device's memory it is begun again with half of its rows, and so large are those to
    come: `tell` is called with that, `what` names the work. Raises `UserError` where a single row does not fit.
    """
    start = 0
    while start < n_rows:
        rows = slice(start, min(start + batch_size, n_rows))
        n_in_batch = rows.stop - rows.start
        try:
            computed = compute(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if n_in_batch == 1:
                raise UserError(
                    f"{what}: one row at a time does not fit in the device's memory",
                    "choose smaller backbones, end what else uses the device, or --device cpu",
                ) from error
        else:
            yield rows, computed
            start = rows.stop
            continue
        batch_size = math.ceil(n_in_batch / 2)  # not in the handler: there the error still holds the tensors
        tell(
            f"{what}: {n_in_batch} rows at a time do not fit in the device's memory: from now on up to {batch_size} "
            "are computed at once; the result stays the same"
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
