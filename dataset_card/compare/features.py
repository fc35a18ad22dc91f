"""Text features of a description set from an npz file, and how alike two sets' are."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.errors import UserError

_MAX_BYTES = 16 * 1024**3  # unpacked; 20,000 texts of 1,024 float32 take 80 MB


class Cosine:
    """How alike the features of two texts are; both files must come from one encoder."""

    def __init__(self, path_a: Path, path_b: Path) -> None:
        self._paths = path_a, path_b
        self._a, self._b = read_features(path_a), read_features(path_b)
        dims = [len(next(iter(vectors.values()), ())) for vectors in (self._a, self._b)]
        if dims[0] != dims[1]:
            raise UserError(
                f"{path_a} has features of {dims[0]} dimensions and {path_b} of {dims[1]}: not one encoder's"
            )

    def between(self, id_a: str, id_b: str) -> float:
        """The cosine between A's text of one photograph and B's of the same or another one."""
        for image_id, vectors, path in ((id_a, self._a, self._paths[0]), (id_b, self._b, self._paths[1])):
            if image_id not in vectors:
                raise UserError(f"{path} holds no features of image {image_id}", "make features of every description")
        return float(self._a[id_a] @ self._b[id_b])


def read_features(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Feature vectors of length 1 by `image_id`, from the arrays `image_id` (rows) and `features` (rows, dimensions).

    Nothing is unpickled. Raises `UserError` where the file is not such an npz.
    """
    fix = "numpy.savez(FILE, image_id=ids, features=vectors), ids as text"
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > _MAX_BYTES:
            raise UserError(f"{path} would take {n_bytes} bytes unpacked; at most {_MAX_BYTES} are read")
        with np.load(path, allow_pickle=False) as arrays:
            if not {"image_id", "features"} <= set(arrays.files):
                raise UserError(f"{path} holds the arrays {', '.join(arrays.files)}, not image_id and features", fix)
            ids, vectors = arrays["image_id"], arrays["features"]
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {path} as npz: {error}", fix) from error
    if ids.ndim != 1 or vectors.ndim != 2 or len(ids) != len(vectors) or vectors.dtype.kind not in "fiu":
        raise UserError(f"{path}: image_id is {ids.dtype} {ids.shape}, features {vectors.dtype} {vectors.shape}", fix)
    rows = vectors.astype(np.float32)
    if not np.isfinite(rows).all():
        raise UserError(f"{path} holds features that are no finite numbers")
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return dict(zip((str(image_id) for image_id in ids), rows, strict=True))
