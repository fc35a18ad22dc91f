"""How far each test image is from train, in the features of a frozen backbone: what leaks is near."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from train.data import Split

_BLOCK = 256  # test rows at a time


def nearest_of(pooled: npt.NDArray[Any], image_ids: list[str], split: Split) -> pa.Table:
    """Per test row: the cosine distance to the nearest train image, in [0, 2], and that image's id.

    `pooled` is (n, dim), of all rows. Features are centred on the train mean first: without it the cosines of most
    backbones lie close to 1, whatever the photographs show.
    """
    centre = np.asarray(pooled[split.train], dtype=np.float32).mean(axis=0)
    train = _directions(pooled[split.train], centre)
    distances: list[npt.NDArray[np.float32]] = []
    nearest: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(split.test), _BLOCK):
        cosines = _directions(pooled[split.test[start : start + _BLOCK]], centre) @ train.T
        nearest.append(split.train[cosines.argmax(axis=1)])
        distances.append(np.clip(1 - cosines.max(axis=1), 0, 2))
    return pa.table(
        {
            "image_id": pa.array([image_ids[row] for row in split.test], pa.string()),
            "distance": pa.array(np.concatenate(distances), pa.float32()),
            "nearest": pa.array([image_ids[row] for row in np.concatenate(nearest)], pa.string()),
        }
    )


def _directions(features: npt.NDArray[Any], centre: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centred = np.asarray(features, dtype=np.float32) - centre
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
