"""How InternVL cuts an image into tiles, in the words of its two checkpoint formats."""

from typing import Any

from builders.errors import UserError


def tile_args(architecture: str, max_dynamic_patch: int | None) -> dict[str, Any] | None:
    """Processor arguments that cap the tiles per image; None leaves the checkpoint's own.

    `InternVLChatModel` (custom code) calls it `max_dynamic_patch`; `InternVLForConditionalGeneration` uses the
    processor of GOT-OCR2, which calls it `max_patches` and adds a thumbnail where it crops at all. Raises `UserError`
    for other models, which have no tiles.
    """
    if max_dynamic_patch is None:
        return None
    if not architecture.startswith("Intern"):
        kind = architecture or "of no known kind"
        raise UserError(
            f"--max-dynamic-patch {max_dynamic_patch} is for InternVL; this model is {kind}",
            'leave it out, or give the model\'s own words: --engine-arg mm_processor_kwargs={"max_pixels": 602112}',
        )
    if architecture == "InternVLForConditionalGeneration":
        return {"crop_to_patches": max_dynamic_patch > 1, "max_patches": max_dynamic_patch}
    return {"max_dynamic_patch": max_dynamic_patch}


def tokens_per_tile(hf_config: Any) -> int:
    """Image tokens of one tile, from either format's config; 0 for other models, whose images have no tiles."""
    if getattr(hf_config, "image_seq_length", None):
        return int(hf_config.image_seq_length)
    vision = getattr(hf_config, "vision_config", None)
    ratio = getattr(hf_config, "downsample_ratio", None)
    size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if ratio is None or size is None or patch is None:
        return 0
    return int((size // patch) ** 2 * ratio**2)
