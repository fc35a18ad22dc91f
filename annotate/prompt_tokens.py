"""Tokens of a prompt, from its image's size, by the checkpoint's tokenizer and processor and without its weights."""

import copy
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from PIL import Image

from annotate.checkpoint import read_config
from annotate.engines.internvl import tokens_per_tile
from annotate.models import Model
from builders.torch_repair import repair

_BLANK_PX = 224  # side of the one image that really goes through the processor


class UnknownTokensError(Exception):
    """The tokens of this model's prompts cannot be told; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of the prompts of some images. `n_text_tokens` are per text, chat template and image marks included.

    `n_image_tokens` and `n_tiles` are per image; `n_tiles` is empty for models other than InternVL.
    """

    n_text_tokens: list[int]
    n_image_tokens: list[int]
    n_tiles: list[int]


def count_prompt_tokens(
    model: Model, texts: list[str], sizes_px: list[tuple[int, int]], processor_args: dict[str, Any]
) -> PromptTokens:
    """Count for the user's words in `texts` and images of `sizes_px`, each (width, height).

    `processor_args` are those that the engine would pass.

    Raises `UnknownTokensError` where the model is elsewhere, sees no images, or has no processor that tells.
    """
    if not model.location:
        raise UnknownTokensError("the model is not on this machine")
    if find_spec("transformers") is None:
        raise UnknownTokensError("transformers is not installed")
    count = _by_config if model.architecture == "InternVLChatModel" else _by_processor
    try:
        repair()
        return count(model, texts, sizes_px, processor_args)
    except UnknownTokensError:
        raise
    except Exception as error:  # checkpoints bring code of their own, and tokenizers raises bare Exception
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnknownTokensError(f"the processor of {model.id} cannot be used: {reason[0]}") from error


def tiles_of(size_px: tuple[int, int], tile_px: int, min_tiles: int, max_tiles: int, use_thumbnail: bool) -> int:
    """Tiles of an image of (width, height), the thumbnail among them, in the custom-code format.

    Source: `dynamic_preprocess` in https://huggingface.co/OpenGVLab/InternVL3-8B; the grid whose aspect ratio is
    nearest, of several the largest that the image fills by half.
    """
    width_px, height_px = size_px
    grids = [(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1)]
    n_tiles, nearest = 1, float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        if columns * rows < min_tiles:
            continue
        distance = abs(width_px / height_px - columns / rows)
        is_filled = width_px * height_px > 0.5 * tile_px**2 * columns * rows
        if distance < nearest or (distance == nearest and is_filled):
            n_tiles, nearest = columns * rows, distance
    return n_tiles + 1 if use_thumbnail and n_tiles > 1 else n_tiles


def _by_processor(
    model: Model, texts: list[str], sizes_px: list[tuple[int, int]], processor_args: dict[str, Any]
) -> PromptTokens:
    """By transformers' own arithmetic per size; the text's share is what a blank image's whole prompt has more."""
    from transformers import AutoProcessor

    is_internvl = model.architecture == "InternVLForConditionalGeneration"
    # Each where transformers' arithmetic looks for it: Qwen's `size` in the processor, InternVL's tiles in the call.
    at_load, at_call = ({}, processor_args) if is_internvl else (processor_args, {})
    processor: Any = AutoProcessor.from_pretrained(
        model.location, revision=model.hub_revision, trust_remote_code=model.trust_remote_code, **at_load
    )
    tell = getattr(processor, "_get_num_multimodal_tokens", None)
    if tell is None:
        raise UnknownTokensError(f"{type(processor).__name__} of {model.id} does not tell how many tokens an image has")
    heights_and_widths = [(_BLANK_PX, _BLANK_PX), *((height_px, width_px) for width_px, height_px in sizes_px)]
    with _kept(processor):
        told = tell(image_sizes=heights_and_widths, **at_call)
    if is_internvl:  # the marks around an image count as text, as in a run
        n_tiles: list[int] = list(told.num_image_patches)
        n_image_tokens = [n * processor.image_seq_length for n in n_tiles]
    else:
        n_tiles, n_image_tokens = [], list(told.num_image_tokens)
    picture = {"type": "image", "image": Image.new("RGB", (_BLANK_PX, _BLANK_PX))}
    n_text_tokens: list[int] = []
    for text in texts:
        inputs = processor.apply_chat_template(
            [[{"role": "user", "content": [picture, {"type": "text", "text": text}]}]],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs=at_call,
        )
        n_text_tokens.append(len(inputs["input_ids"][0]) - n_image_tokens[0])
    return PromptTokens(n_text_tokens, n_image_tokens[1:], n_tiles[1:])


@contextmanager
def _kept(processor: Any) -> Generator[None]:
    """Undo what `_get_num_multimodal_tokens` does to its class: in transformers 5.19 its arguments become the defaults
    of every processor of that class in this process."""
    defaults: dict[str, Any] = getattr(type(processor).valid_processor_kwargs, "_defaults", {})
    before = copy.deepcopy(defaults)
    try:
        yield
    finally:
        defaults.clear()
        defaults.update(before)


def _by_config(
    model: Model, texts: list[str], sizes_px: list[tuple[int, int]], processor_args: dict[str, Any]
) -> PromptTokens:
    """For InternVL's custom-code format, which has no processor: tiles by config.json, text by the tokenizer."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(
        model.location, revision=model.hub_revision, trust_remote_code=model.trust_remote_code
    )
    rendered: list[str] = tokenizer.apply_chat_template(
        [[{"role": "user", "content": f"<img></img>\n{text}"}] for text in texts],
        add_generation_prompt=True,
        tokenize=False,
    )
    config = {**read_config(model), **processor_args}
    vision: dict[str, Any] = config["vision_config"]
    is_cut = config["dynamic_image_size"]
    tiling: dict[str, Any] = {
        "tile_px": vision["image_size"],
        "min_tiles": config["min_dynamic_patch"] if is_cut else 1,
        "max_tiles": config["max_dynamic_patch"] if is_cut else 1,
        "use_thumbnail": config["use_thumbnail"],
    }
    per_tile = tokens_per_tile(
        SimpleNamespace(downsample_ratio=config["downsample_ratio"], vision_config=SimpleNamespace(**vision))
    )
    n_tiles = [tiles_of(size_px, **tiling) for size_px in sizes_px]
    n_text_tokens = [len(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]]
    return PromptTokens(n_text_tokens, [n * per_tile for n in n_tiles], n_tiles)
