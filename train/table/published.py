"""What the reproduced paper reports, and what its rows are called."""

from train.origin import Origin

# Its rows on DermNet's own split (4,002 test images), one seed each: name, accuracy in %, macro-F1.
PUBLISHED: dict[str, tuple[str, float, float]] = {
    "text_only": ("BERT (text only)", 35.66, 0.2992),
    "image_only": ("ViT (image only)", 70.59, 0.6648),
    "concat": ("Concat", 70.44, 0.6696),
    "gating": ("Gating", 70.39, 0.6671),
    "dual_film": ("Dual FiLM", 70.41, 0.6702),
    "attention_pooling": ("Attention pooling", 71.31, 0.6794),
}
BASELINE = "image_only"
UNIMODAL = ("text_only", BASELINE)


def parent_of(model: str) -> str | None:
    """Of a control's row, MODEL+CONTROL, the model; None for a model itself."""
    parent, plus, _ = model.partition("+")
    return parent if plus else None


def reads_both(model: str) -> bool:
    """Whether the row is a fusion with its own descriptions: of these the table says whether text helps."""
    return parent_of(model) is None and model not in UNIMODAL


def title_of(model: str, origin: Origin) -> str:
    """`Attention pooling: shuffled text` for `attention_pooling+shuffled_text`.

    A row of one encoder is named after the experiment's own where that is not the paper's: `dinov2-small (image only)`.
    """
    name, _, control = model.partition("+")
    title = PUBLISHED[name][0] if name in PUBLISHED else name
    for alone, encoder, what in ((BASELINE, origin.image, "image only"), ("text_only", origin.text, "text only")):
        if name == alone and encoder != "":
            title = f"{encoder} ({what})" if encoder else what.capitalize()
    return f"{title}: {control.replace('_', ' ')}" if control else title
