"""`distances/PROTOCOL.parquet`: how far each test image is from train, in features that no training has touched.

Backbones that are fine-tuned are taken as they were before: what they learn of the train images would be measured too,
and it would be another yardstick for every model and seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from builders.files import write_table
from train.backbones import ImageBackbone
from train.config import Protocol, TrainConfig
from train.data import Examples, Split
from train.fusion import FUSIONS
from train.inputs import CachedInputs
from train.memory import in_batches
from train.nearest import nearest_of
from train.parts import Parts
from train.progress import progress_bar, say

FEATURES_OF = b"features_of"  # in a file's schema metadata: what computed the features, for readers
_ROWS_AT_ONCE = 64  # through the backbone


def lacks_distances(config: TrainConfig, examples: Examples) -> bool:
    """Whether a protocol whose models see images has no distances yet, and the images are here to measure them."""
    sees = any(FUSIONS[name].uses_image for name in config.models)
    has_images = bool(config.features) or examples.read_image is not None
    return sees and has_images and not all(_path(config, protocol).is_file() for protocol in config.protocols)


def write_distances(
    config: TrainConfig, examples: Examples, splits: dict[Protocol, Split], parts: Parts, console: Console
) -> None:
    """Write the file of every protocol that has none; `parts` as they were loaded, nothing in them trained.

    Pooled features are read where they are cached, and computed here, once, where backbones are fine-tuned.
    """
    lacking = {protocol: split for protocol, split in splits.items() if not _path(config, protocol).is_file()}
    if not lacking or parts.image is None:
        return
    pooled = _pooled(parts, len(examples.image_ids), console)
    if pooled is None:
        return
    for protocol, split in lacking.items():
        table = nearest_of(pooled, examples.image_ids, split)
        write_table(
            _path(config, protocol), table.replace_schema_metadata({FEATURES_OF: _said(config, parts).encode()})
        )


def _path(config: TrainConfig, protocol: str) -> Path:
    return config.out / "distances" / f"{protocol}.parquet"


def _said(config: TrainConfig, parts: Parts) -> str:
    """What the features are of, without a machine's paths."""
    if not isinstance(parts.image, ImageBackbone):
        return f"features from a file, {', '.join(config.image_features)}"
    name = Path(config.image_backbone).name if Path(config.image_backbone).is_absolute() else config.image_backbone
    return f"pooled features of {name}, {'frozen' if config.is_frozen else 'as it was before it was fine-tuned'}"


def _pooled(parts: Parts, n_rows: int, console: Console) -> npt.NDArray[Any] | None:
    """(n_rows, dim) features of all images; None where there are no photographs."""
    inputs, backbone = parts.inputs, parts.image
    if isinstance(inputs, CachedInputs):
        return None if inputs.image is None else inputs.image[1]
    if not isinstance(backbone, ImageBackbone) or inputs.pixels is None:
        return None

    kept = inputs.frozen_blocks

    @torch.inference_mode()
    def encode(rows: slice) -> npt.NDArray[np.float32]:
        asked = np.arange(rows.start, rows.stop)
        encoded = backbone(inputs.pixels_of(asked)) if kept is None else kept.encode(backbone, asked)
        return encoded.pooled.float().cpu().numpy()

    def tell(message: str) -> None:
        say(console, message)

    found: list[npt.NDArray[np.float32]] = []
    with progress_bar(console, "distances to train", n_rows) as advance:
        for rows, pooled in in_batches(n_rows, _ROWS_AT_ONCE, encode, "distances to train", tell):
            found.append(pooled)
            advance(rows.stop - rows.start)
    return np.concatenate(found)
