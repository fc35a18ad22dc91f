"""Images flipped and shifted on the device that trains: one vectorised gather for a batch, the same on every device."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from train.chance import uniform


def augment(
    pixels: UInt8[Tensor, "batch height width 3"], rows: npt.NDArray[np.int64], seed: int, epoch: int
) -> UInt8[Tensor, "batch height width 3"]:
    """Each image of a batch flipped at random and shifted by up to an eighth, its border repeated where it left.

    A function of (seed, epoch, row) alone, so an order of batches or a restart changes nothing. The image keeps its
    description and its label. "Left" and "right" in the description may then be wrong, which a flip cannot know.
    """
    n_images, height_px, width_px, _ = pixels.shape
    draws = uniform(rows, 3, seed, epoch)
    down_px, right_px = (
        (np.floor(draw * (2 * (side_px // 8) + 1)) - side_px // 8).astype(np.int64)
        for draw, side_px in ((draws[:, 1], height_px), (draws[:, 2], width_px))
    )
    from_rows = np.clip(np.arange(height_px) - down_px[:, None], 0, height_px - 1)  # (batch, height)
    from_columns = np.clip(np.arange(width_px) - right_px[:, None], 0, width_px - 1)  # (batch, width)
    from_columns = np.where(is_mirrored(rows, seed, epoch)[:, None], width_px - 1 - from_columns, from_columns)
    lines = np.arange(n_images)[:, None] * height_px + from_rows  # of all images, one below the other
    lines, columns = (
        torch.from_numpy(numbers).to(pixels.device, non_blocking=True) for numbers in (lines, from_columns)
    )
    from_pixels = lines[:, :, None] * width_px + columns[:, None, :]  # (batch, height, width), of all images' pixels
    return pixels.reshape(-1, 3).index_select(0, from_pixels.reshape(-1)).reshape(pixels.shape)


def is_mirrored(rows: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    """Which of `rows` are flipped: half of them, a function of (seed, epoch, row) alone."""
    return uniform(rows, 1, seed, epoch)[:, 0] < 0.5
