"""How two modalities become one answer: one file per fusion, each citing its paper. A new one is a file and a line."""

from train.fusion.attention_pooling import AttentionPooling
from train.fusion.base import Fusion
from train.fusion.concat import Concat
from train.fusion.dual_film import DualFilm
from train.fusion.gating import Gating
from train.fusion.image_only import ImageOnly
from train.fusion.text_only import TextOnly

FUSIONS: dict[str, type[Fusion]] = {
    "text_only": TextOnly,
    "image_only": ImageOnly,
    "concat": Concat,
    "gating": Gating,
    "dual_film": DualFilm,
    "attention_pooling": AttentionPooling,
}
