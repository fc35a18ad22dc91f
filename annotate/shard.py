"""A share of the images, for one of several machines: by hash of their bytes, so that copies stay together."""

import re
from dataclasses import dataclass

from builders.errors import UserError


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `n_shards`, from 0. Any image is in exactly one, whatever the order of the files."""

    number: int
    n_shards: int

    @property
    def name(self) -> str:
        """For file names: `shard-3-of-8`."""
        return f"shard-{self.number}-of-{self.n_shards}"

    def __str__(self) -> str:
        return f"shard {self.number}/{self.n_shards}"

    def has(self, image_sha256: str) -> bool:
        """Whether the image with these bytes is in this shard; what could not be read is in the first."""
        return int(image_sha256[:16] or "0", 16) % self.n_shards == self.number


def parse_shard(text: str | None) -> Shard | None:
    """`I/N` to a shard, I from 0 to N - 1 as Slurm counts its array; None for None. `UserError` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(f"--shard '{text}' is not I/N with I from 0 to N-1", "--shard 0/8")
    return Shard(int(found[1]), int(found[2]))
