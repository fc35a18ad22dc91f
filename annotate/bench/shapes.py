"""Checkpoints of a given size with random weights: for speed, what a model says does not count."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.prompts import load_prompt
from builders.torch_repair import repair

N_IMAGE_TOKENS = {224: 64, 448: 256}  # by the side of a tile in pixels, at 14 px a patch and a pixel shuffle of 2 x 2


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of an InternVL: its vision tower and its language model (Qwen2)."""

    image_size_px: int
    vision_width: int
    vision_layers: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int


SHAPES = {
    "random-70m": Shape(224, 384, 12, 640, 10, 10, 10, 1728),  # large enough that on two cores the engine dominates
}


def write_random(folder: Path, shape: Shape) -> None:
    """Write a checkpoint that vLLM and transformers load: real architecture and processor, random weights, seeded."""
    repair()
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    from annotate.tiny_internvl.architecture import build_processor, build_tokenizer

    tokenizer: Any = build_tokenizer([load_prompt("doctor").text] * 20)
    side = shape.image_size_px
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=shape.vision_width,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_width // 64,
            intermediate_size=4 * shape.vision_width,
            image_size=[side, side],
            patch_size=[14, 14],
        ),
        text_config=Qwen2Config(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.intermediate,
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=N_IMAGE_TOKENS[side],
        downsample_ratio=0.5,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    build_processor(tokenizer, side, N_IMAGE_TOKENS[side]).save_pretrained(folder)
