"""How two modalities become one answer: one file per fusion, each citing its paper. A new one is a file and a line."""

from train.fusion.attention_pooling import AttentionPooling
from train.fusion.base import Fusion
from train.fusion.bottleneck_tokens import BottleneckTokens
from train.fusion.concat import Concat
from train.fusion.cross_attention import CrossAttention
from train.fusion.dual_film import DualFilm
from train.fusion.gating import Gating
from train.fusion.gmu import Gmu
from train.fusion.image_only import ImageOnly
from train.fusion.late_logits import LateLogits
from train.fusion.learned_query_pooling import LearnedQueryPooling
from train.fusion.low_rank_tensor import LowRankTensor
from train.fusion.text_only import TextOnly

FUSIONS: dict[str, type[Fusion]] = {
    # The rows of the reproduced paper, in its order.
    "text_only": TextOnly,
    "image_only": ImageOnly,
    "concat": Concat,
    "gating": Gating,
    "dual_film": DualFilm,
    "attention_pooling": AttentionPooling,
    # Beyond the paper: on pooled vectors, then on tokens.
    "gmu": Gmu,
    "late_logits": LateLogits,
    "low_rank_tensor": LowRankTensor,
    "learned_query_pooling": LearnedQueryPooling,
    "cross_attention": CrossAttention,
    "bottleneck_tokens": BottleneckTokens,
}
