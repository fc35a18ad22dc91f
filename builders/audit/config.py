"""What one audit looks at, and the thresholds it judges by."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

# Bits of 63 and correlation of 32 × 32 grey thumbnails. On PAD-UFES-20 and HAM10000, 98 to 100 of 100 photographs that
# were saved at quality 20, halved, quartered or brightened by a fifth stay within both, of those that lost 1 % at
# every edge 92 to 99. In HAM10000, 97 % of the pairs within both show one lesion; within 7 bits alone it is 6 %.
MAX_HAMMING = 7
MIN_CORRELATION = 0.98
# Distance in feature space, as a share of that to the tenth neighbour. On HAM10000 (DINOv2-small) 93 % of such pairs
# show one lesion, 85 % at 0.65 and 73 % at 0.7; on DermNet (CLIP and DINOv2) 87 % share a file-name stem, the most of
# all thresholds, and the largest group has 5 files.
FEATURE_RATIO = 0.6
TINY_SIDE_PX = 64
TINY_BYTES = 2048


class AuditConfig(BaseModel):
    """What `audit` looks at.

    `images` is a source, an index file, or a bare CSV or Parquet list of paths. `index` spares decoding `images` once
    more. `copies` is a CSV or Parquet list (`path`, `sha256`) of files known to repeat an earlier one, for a bare list
    that has no checksums of its own. `features` is an npz or Parquet file from any encoder, keyed by `path` or
    `sha256`; `encoders` names the arrays of it to use, all by default. `feature_ratio` is the distance of near-copies
    as a share of that to their tenth neighbour. `known` is a CSV or Parquet table of `path` (or `file_name`) and
    `known_column`: groups that somebody knows, like the photographs of one lesion, to hold the groups found against.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: str
    out: Path
    index: Path | None = None
    copies: Path | None = None
    features: Path | None = None
    encoders: tuple[str, ...] = ()
    feature_ratio: float = Field(default=FEATURE_RATIO, ge=0, lt=1)
    known: Path | None = None
    known_column: str = "group"
    seed: int = 0
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    n_workers: int | None = Field(default=None, ge=0)
