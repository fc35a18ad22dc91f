"""Checkpoints of a given size with random weights, or none: for speed, what a model says does not count."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.prompts import load_prompt
from builders.torch_repair import repair

N_IMAGE_TOKENS = {224: 64, 448: 256}  # by the side of a tile in pixels, at 14 px a patch and a pixel shuffle of 2 x 2


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of an InternVL: its vision tower and its language model (Qwen2).

    `vocabulary` of None is what the small tokenizer has. A shape with `has_weights` False is written without any: vLLM
    makes them up (`load_format=dummy`), on the device and in the type that they are needed in.
    """

    image_size_px: int
    vision_width: int
    vision_layers: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int | None = None
    max_tiles: int = 1
    has_weights: bool = True


SHAPES = {
    "random-70m": Shape(224, 384, 12, 640, 10, 10, 10, 1728),  # large enough that on two cores the engine dominates
    # As published: the config.json of each OpenGVLab/InternVL3-*-hf.
    "internvl3-1b": Shape(448, 1024, 24, 896, 24, 14, 2, 4864, 151_674, max_tiles=12, has_weights=False),
    "internvl3-2b": Shape(448, 1024, 24, 1536, 28, 12, 2, 8960, 151_674, max_tiles=12, has_weights=False),
    "internvl3-8b": Shape(448, 1024, 24, 3584, 28, 28, 4, 18944, 151_674, max_tiles=12, has_weights=False),
    # The same path, tiles and all, at a size for two cores.
    "dummy-tiny": Shape(224, 128, 2, 128, 2, 2, 1, 256, 2_000, max_tiles=12, has_weights=False),
}


def write_random(folder: Path, shape: Shape) -> None:
    """Write a checkpoint that vLLM and transformers load: real architecture and processor; weights random, seeded."""
    repair()
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    from annotate.tiny_internvl.architecture import build_processor, build_tokenizer

    tokenizer: Any = build_tokenizer([load_prompt("doctor").text] * 20)
    if shape.vocabulary is not None:
        tokenizer = _filled(tokenizer, shape.vocabulary)
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
            max_position_embeddings=4096 if shape.has_weights else 32_768,
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
    if shape.has_weights:
        torch.manual_seed(0)
        InternVLForConditionalGeneration(config).save_pretrained(folder)
    else:
        config.architectures = [InternVLForConditionalGeneration.__name__]
        config.save_pretrained(folder)
    build_processor(tokenizer, side, N_IMAGE_TOKENS[side], shape.max_tiles).save_pretrained(folder)


def _filled(tokenizer: Any, n_tokens: int) -> Any:
    """The tokenizer with words that nothing merges to, up to `n_tokens`: any number a model says can be written."""
    from tokenizers import Tokenizer

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = described["model"]["vocab"]
    for number in range(len(vocabulary), n_tokens):
        vocabulary[f"Ġword{number}"] = number  # Ġ: a blank, in bytes as GPT-2 writes them
    return type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        extra_special_tokens={
            name: getattr(tokenizer, name)
            for name in ("start_image_token", "end_image_token", "context_image_token", "video_token")
        },
    )
