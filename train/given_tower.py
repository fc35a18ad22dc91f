"""What stands in a model where a backbone would, when its features were computed elsewhere."""

from typing import Any

from torch import nn

from train.backbones import BackboneConfig

ARCHITECTURE = "features"  # in a model folder's config: no class of transformers


class GivenFeatures(nn.Module):
    """The place of a backbone in `FusionModel`: says how wide its features are, and computes none."""

    pixels: Any = None  # no photographs are read

    def __init__(self, names: tuple[str, ...], dim: int) -> None:
        super().__init__()
        self.config = BackboneConfig(
            source="+".join(names),
            revision=None,
            architecture=ARCHITECTURE,
            pooling="mean",
            skips_first=False,
            dim=dim,
        )
