"""Attributes to a doctor's note and back: the language the bundled model speaks.

Wording varies from image to image, and each choice is decided by something visible (the site picks the opening, the
colour the order, the skin tone a synonym). So a note has one right wording, and greedy decoding meets no near-ties.
"""

import re

from builders.sample.attributes import Attributes

_OPENINGS: dict[str, tuple[str, str]] = {  # singular, plural; {lesion} is "a solitary, round, red lesion"
    "forearm": (
        "On the forearm there is {lesion} of about {mm} mm.",
        "On the forearm there are {lesion} of about {mm} mm each.",
    ),
    "trunk": (
        "The trunk shows {lesion}, roughly {mm} mm across.",
        "The trunk shows {lesion}, each roughly {mm} mm across.",
    ),
    "scalp": (
        "Among the hairs of the scalp lies {lesion} with a diameter near {mm} mm.",
        "Among the hairs of the scalp lie {lesion} with diameters near {mm} mm.",
    ),
    "palm": (
        "Close view of the palm: {lesion}, {mm} mm in size.",
        "Close view of the palm: {lesion}, {mm} mm in size each.",
    ),
}
_COUNTS: dict[str, tuple[str, str]] = {
    "single": ("a solitary", "one isolated"),
    "few": ("a few", "several separate"),
    "many": ("numerous", "many scattered"),
}
_MILLIMETRES: dict[str, str] = {"small": "5", "medium": "11", "large": "26"}
_SHAPES: dict[str, tuple[str, str]] = {
    "round": ("round", "circular"),
    "irregular": ("irregularly shaped", "lobulated"),
    "annular": ("ring-shaped", "annular"),
    "linear": ("linear", "elongated"),
}
_COLOURS: dict[str, tuple[str, str]] = {
    "red": ("red", "erythematous"),
    "brown": ("brown", "hyperpigmented"),
    "pale": ("pale", "hypopigmented"),
    "violet": ("violaceous", "purple"),
    "yellow": ("yellow", "cream-coloured"),
}
_SURFACES: dict[str, tuple[str, str]] = {
    "flat": ("level with the skin, whose markings are unchanged", "flat and not palpable"),
    "domed": ("raised into a firm, smooth dome", "solid, elevated and dome-shaped"),
    "scaly": ("raised and flat-topped, with dry white scale", "elevated, rough and covered by silvery scale"),
    "fluid": ("raised, tense and filled with clear fluid", "translucent and glistening, with clear contents"),
    "pus": ("raised and filled with turbid fluid", "elevated, with opaque contents and a reddened rim"),
    "oedematous": ("swollen, smooth and flat-topped", "elevated, soft and stretched by oedema"),
}
_BORDERS: dict[str, tuple[str, str]] = {
    "well_defined": ("The border is well defined.", "Margins are sharp."),
    "ill_defined": ("The border is ill defined.", "Margins fade gradually."),
}
_SKIN_TONES: dict[str, tuple[str, str]] = {
    "light": ("The surrounding skin is light.", "Background skin of light tone."),
    "medium": ("The surrounding skin is of medium tone.", "Background skin of intermediate tone."),
    "dark": ("The surrounding skin is dark.", "Background skin of deep tone."),
}


def describe(attributes: Attributes) -> str:
    """The one note for these attributes."""
    is_plural = attributes.count != "single"
    by_site = attributes.site in ("trunk", "palm")
    by_tone = attributes.skin_tone == "medium"
    by_colour = attributes.colour in ("brown", "violet")
    by_surface = attributes.surface in ("scaly", "fluid", "oedematous")
    lesion = (
        f"{_COUNTS[attributes.count][by_site]}, {_SHAPES[attributes.shape][by_surface]}, "
        f"{_COLOURS[attributes.colour][by_tone]} lesion{'s' if is_plural else ''}"
    )
    opening = _OPENINGS[attributes.site][is_plural].format(lesion=lesion, mm=_MILLIMETRES[attributes.size])
    surface = f"{'They are' if is_plural else 'It is'} {_SURFACES[attributes.surface][by_tone]}."
    border = _BORDERS[attributes.border][by_site]
    tone = _SKIN_TONES[attributes.skin_tone][by_surface]
    order = (opening, border, surface, tone) if by_colour else (opening, surface, border, tone)
    return " ".join(order)


def read(text: str) -> dict[str, str]:
    """The attributes that a note states, by name; one that is missing or stated in two ways is left out."""
    found = {
        "count": _stated(text, _COUNTS),
        "size": _stated(text, {size: (f"{mm} mm",) for size, mm in _MILLIMETRES.items()}),
        "shape": _stated(text, _SHAPES),
        "colour": _stated(text, _COLOURS),
        "border": _stated(text, _BORDERS),
        "surface": _stated(text, _SURFACES),
        "site": _stated(text, {site: (f"the {site}",) for site in _OPENINGS}),
        "skin_tone": _stated(text, _SKIN_TONES),
    }
    return {name: value for name, value in found.items() if value is not None}


def _stated(text: str, phrases: dict[str, tuple[str, ...]]) -> str | None:
    stated = [value for value, wordings in phrases.items() if any(_holds(text, wording) for wording in wordings)]
    return stated[0] if len(stated) == 1 else None


def _holds(text: str, wording: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(wording)}(?![\w-])", text, re.IGNORECASE) is not None
