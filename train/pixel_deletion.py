"""The deletion test on the photograph itself: patches are painted over, and the backbone looks at what is left.

Where tokens are deleted behind the backbone, the others have already taken over from them; here nothing of a patch
reaches anything. A flat patch is itself a thing to see, so the yardstick is again as many random ones.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from train.attention_maps import Deletion, PatchGrid
from train.features import Features
from train.model import FusionModel

PERCENTS = (10, 40)  # of the patches that are painted over
N_DRAWS = 3  # of random patches, averaged per image
N_IMAGES = 32  # of the sampled ones: each costs seven passes of the backbone

Places = npt.NDArray[np.int64]


@torch.inference_mode()
def pixel_deletion_test(
    model: FusionModel,
    features: Features,
    pixels: UInt8[Tensor, "1 height width 3"],
    weights: npt.NDArray[np.float32],
    label: int,
    row: int,
    seed: int,
    grid: PatchGrid,
) -> list[Deletion]:
    """Paint the heaviest patches over in the photograph's mean colour, and as many random ones; the text stays.

    What is random is a function of (`seed`, `row`). `features` hold the row's text, `weights` are those of the `grid`'s
    patches, row by row. Images go through the backbone one at a time: what fits in memory for a prediction fits here.
    """
    rng = np.random.default_rng([seed, row])  # other random patches for each image
    heaviest = np.argsort(-weights, kind="stable")
    draws = [rng.permutation(len(weights)) for _ in range(N_DRAWS)]
    colour = pixels.float().mean(dim=(1, 2)).round().to(torch.uint8)  # (1, 3)

    def probability(gone: Places) -> float:
        seen = model.encode(_painted(pixels, gone, grid, colour), None, None, 1)
        logits = model(replace(features, image_tokens=seen.image_tokens, image_pooled=seen.image_pooled))
        return float(torch.softmax(logits.double(), dim=-1)[0, label])

    before = probability(np.arange(0))
    tests: list[Deletion] = []
    for percent in PERCENTS:
        n_painted = max(1, round(percent / 100 * len(weights)))
        without_random = float(np.mean([probability(order[:n_painted]) for order in draws]))
        tests.append(Deletion("photograph", percent, before, probability(heaviest[:n_painted]), without_random))
    return tests


def _painted(pixels: Tensor, patches: Places, grid: PatchGrid, colour: Tensor) -> Tensor:
    """A copy of the (1, height, width, 3) pixels with these patches of the grid in one colour."""
    height_px, width_px = pixels.shape[1] // grid.rows, pixels.shape[2] // grid.columns
    painted = pixels.clone()
    for row, column in zip(*divmod(patches, grid.columns), strict=True):
        top, left = int(row) * height_px, int(column) * width_px
        painted[0, top : top + height_px, left : left + width_px] = colour
    return painted
