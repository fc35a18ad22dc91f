"""What can be seen on one photograph: the ground truth, drawn from a seed before anything is rendered."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

import numpy as np

Count = Literal["single", "few", "many"]
Size = Literal["small", "medium", "large"]
Shape = Literal["round", "irregular", "annular", "linear"]
Colour = Literal["red", "brown", "pale", "violet", "yellow"]
Border = Literal["well_defined", "ill_defined"]
Surface = Literal["flat", "domed", "scaly", "fluid", "pus", "oedematous"]
Site = Literal["forearm", "trunk", "scalp", "palm"]
SkinTone = Literal["light", "medium", "dark"]
_Value = TypeVar("_Value")

DIAMETER_MM: dict[Size, float] = {"small": 5.0, "medium": 11.0, "large": 26.0}  # gaps wide enough to be seen
COUNTS: dict[Size, tuple[Count, ...]] = {
    "small": ("single", "few", "many"),
    "medium": ("single", "few"),
    "large": ("single",),
}
SITES: tuple[Site, ...] = ("forearm", "trunk", "scalp", "palm")
SKIN_TONES: tuple[SkinTone, ...] = ("light", "medium", "dark")
ATTRIBUTE_NAMES = ("count", "size", "shape", "colour", "border", "surface", "site", "skin_tone")


@dataclass(frozen=True, slots=True)
class Attributes:
    """One photograph's visible features; `size` is the longest diameter of one lesion, see `DIAMETER_MM`."""

    count: Count
    size: Size
    shape: Shape
    colour: Colour
    border: Border
    surface: Surface
    site: Site
    skin_tone: SkinTone

    @property
    def morphology(self) -> str:
        """The class: the textbook's primary lesion, which surface and size (below or above 10 mm) decide."""
        return next(
            name for name, kind in MORPHOLOGIES.items() if self.surface == kind.surface and self.size in kind.sizes
        )


@dataclass(frozen=True, slots=True)
class Morphology:
    """What a primary lesion may look like; no (surface, size) pair belongs to two of them."""

    surface: Surface
    sizes: tuple[Size, ...]
    shapes: tuple[Shape, ...]
    colours: tuple[Colour, ...]
    borders: tuple[Border, ...]

    def shapes_at(self, size: Size) -> tuple[Shape, ...]:
        """The shapes that can be told apart at this size: lobes must be large to be seen in a small image."""
        return tuple(shape for shape in self.shapes if shape != "irregular" or size == "large")


_SMALL: tuple[Size, ...] = ("small",)
_WIDE: tuple[Size, ...] = ("medium", "large")
_EITHER: tuple[Border, ...] = ("well_defined", "ill_defined")
_SHARP: tuple[Border, ...] = ("well_defined",)
MORPHOLOGIES: dict[str, Morphology] = {
    "macule": Morphology("flat", _SMALL, ("round",), ("red", "brown", "pale", "violet"), _EITHER),
    "patch": Morphology(
        "flat", _WIDE, ("round", "irregular", "annular", "linear"), ("red", "brown", "pale", "violet"), _EITHER
    ),
    "papule": Morphology("domed", _SMALL, ("round",), ("red", "brown", "violet"), _SHARP),
    "nodule": Morphology("domed", _WIDE, ("round",), ("red", "brown", "violet"), _EITHER),
    "plaque": Morphology(
        "scaly", _WIDE, ("round", "irregular", "annular", "linear"), ("red", "brown", "violet"), _EITHER
    ),
    "vesicle": Morphology("fluid", _SMALL, ("round",), ("red", "violet"), _SHARP),
    "pustule": Morphology("pus", _SMALL, ("round",), ("yellow",), _SHARP),
    "wheal": Morphology("oedematous", _WIDE, ("round", "irregular", "linear"), ("red", "pale"), _SHARP),
}


def draw_attributes(rng: np.random.Generator, morphology: str) -> Attributes:
    """Attributes of one photograph that shows `morphology`, each allowed value as likely as the next."""
    kind = MORPHOLOGIES[morphology]
    size: Size = _pick(rng, kind.sizes)
    return Attributes(
        count=_pick(rng, COUNTS[size]),
        size=size,
        shape=_pick(rng, kind.shapes_at(size)),
        colour=_pick(rng, kind.colours),
        border=_pick(rng, kind.borders),
        surface=kind.surface,
        site=_pick(rng, SITES),
        skin_tone=_pick(rng, SKIN_TONES),
    )


def all_attributes() -> Iterator[Attributes]:
    """Every combination that `draw_attributes` can give."""
    for kind in MORPHOLOGIES.values():
        for size in kind.sizes:
            for count, shape, colour, border, site, tone in product(
                COUNTS[size], kind.shapes_at(size), kind.colours, kind.borders, SITES, SKIN_TONES
            ):
                yield Attributes(count, size, shape, colour, border, kind.surface, site, tone)


def _pick(rng: np.random.Generator, values: tuple[_Value, ...]) -> _Value:
    return values[int(rng.integers(len(values)))]
