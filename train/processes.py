"""One process, or several that torchrun started: who takes which rows, and how their gradients become one.

Plain sums instead of `DistributedDataParallel`: every process divides its loss by the whole batch's weight, so the sum
over processes is the gradient of the batch, also where the last batch cannot be cut evenly, where a weight is unused
(a pooler), and where a batch is computed in parts. Weights are then the same in every process.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.data import Rows

T = TypeVar("T")
_BUCKET_VALUES = 1 << 25  # gradients that are summed in one message


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's number among `n`; number 0 alone writes files and speaks."""

    number: int = 0
    n: int = 1
    local_number: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    def share(self, rows: Rows) -> Rows:
        """This process's part of `rows`; the parts in the order of their numbers are `rows` again."""
        return np.array_split(rows, self.n)[self.number]

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.n == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """`value`, summed over all processes."""
        if self.n > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def join(self, parts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The parts of all processes, one after the other, in every process."""
        if self.n == 1:
            return parts
        gathered: list[npt.NDArray[np.float32]] = [parts] * self.n
        dist.all_gather_object(gathered, parts)
        return np.concatenate(gathered)

    def as_in_first(self, tensors: Iterable[Tensor]) -> None:
        """Copy the first process's values into every process's tensors."""
        if self.n > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)

    def told_by_first(self, value: T) -> T:
        """The first process's `value`."""
        if self.n == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.n > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Generator[None]:
        """The first process does what follows, then the others do: they find the files that it wrote."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


ALONE = Processes()


@contextmanager
def joined_processes() -> Generator[Processes]:
    """The processes that torchrun started, joined for as long as it lasts; or this one alone."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield ALONE
        return
    local_number: int = dist.get_node_local_rank(fallback_rank=0)  # pyright: ignore[reportPrivateImportUsage] (documented)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_number)
    # gloo for tensors on the CPU, NCCL for those on a GPU. While the first process decodes photographs or computes
    # features, the others wait, and hours are no fault; torchrun ends them all where one dies.
    dist.init_process_group(timeout=timedelta(days=7))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local_number)
    finally:
        dist.destroy_process_group()


def _buckets(gradients: list[Tensor]) -> Generator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(g.numel() for g in bucket) >= _BUCKET_VALUES:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
