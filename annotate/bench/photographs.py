"""Photographs to measure on: as large as DermNet's, as many bytes, and no two alike."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_PX = (720, 480)  # width, height: DermNet's usual
QUALITY = 75


def write_noise(folder: Path, n_images: int) -> None:
    """Write `n_images` JPEGs of about 100 kB: soft colours under a grain, each a function of its number."""
    folder.mkdir(parents=True, exist_ok=True)
    width_px, height_px = SIZE_PX
    for number in range(n_images):
        path = folder / f"{number:06d}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        colours = Image.fromarray(rng.integers(60, 220, (4, 6, 3), dtype=np.uint8))
        soft = np.asarray(colours.resize(SIZE_PX, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-22, 23, (height_px, width_px, 1), dtype=np.int16)
        part = path.with_suffix(".part")
        Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8)).save(part, "JPEG", quality=QUALITY)
        part.rename(path)
