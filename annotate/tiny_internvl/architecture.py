"""InternVL in its real architecture, made small: tokenizer, processor and untrained model."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

IMAGE_SIZE_PX = 128  # every photograph is one tile of this side, squeezed to a square
PATCH_SIZE_PX = 16
N_IMAGE_TOKENS = (IMAGE_SIZE_PX // PATCH_SIZE_PX // 2) ** 2  # pixel shuffle makes one token of 2 x 2 patches
_WIDTH = 128  # of the vision tower and of the language model
_VOCABULARY = 640  # 256 bytes, the special tokens and the words of the notes and of the prompt
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
_CHAT_TEMPLATE = (  # InternVL3's own, without its default system turn
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from `texts`; it can spell anything else in bytes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=_SPECIAL,
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106 - a text token
        pad_token="<|endoftext|>",  # noqa: S106 - a text token
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast,
    image_size_px: int = IMAGE_SIZE_PX,
    n_image_tokens: int = N_IMAGE_TOKENS,
    max_tiles: int = 1,
) -> InternVLProcessor:
    """InternVL's processor; by default one tile per image and no thumbnail."""
    size = {"height": image_size_px, "width": image_size_px}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=max_tiles),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=n_image_tokens,
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(tokenizer: Any) -> InternVLForConditionalGeneration:
    """An untrained InternVL: four vision layers, a projector, three language layers."""
    vision = InternVLVisionConfig(
        hidden_size=_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=2 * _WIDTH,
        image_size=[IMAGE_SIZE_PX, IMAGE_SIZE_PX],
        patch_size=[PATCH_SIZE_PX, PATCH_SIZE_PX],
        layer_scale_init_value=1.0,  # the default of 0.1 is for towers deep enough to need it
    )
    text = Qwen2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=2 * _WIDTH,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        tie_word_embeddings=True,  # transformers reads it here, vLLM in the language model's part
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=N_IMAGE_TOKENS,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
    )
    return InternVLForConditionalGeneration(config)
