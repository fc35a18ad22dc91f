"""The audit as one page for people: figures, and pictures of the worst pairs, in a file that loads nothing."""

import base64
import io
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from builders.audit.thumbnails import read_checked
from builders.audit.worst import WorstPair
from builders.decode import decode_rgb
from builders.files import write_atomic
from builders.schema import IndexRow

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_PICTURE_PX = 224
_EVIDENCE = {
    "byte_copy": "the same bytes",
    "near_copy": "near-copy, correlation",
    "close_features": "close features, share of the distance to the tenth neighbour",
}


@dataclass(frozen=True, slots=True)
class _Shown:
    """One file of a pair as the page shows it; `picture` is a data URI, empty without the photograph."""

    row: IndexRow
    picture: str


def write_report(file: Path, audit: dict[str, Any], pairs: list[WorstPair], images: str | None) -> None:
    """Write the page of an audit, given as `audit.json` holds it.

    It holds small copies of the photographs in `pairs` if `images` has them: it is for those who may see them.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"visible": visible, "percent": _percent, "count": _count}
    shown = [
        {
            "evidence": _evidence(pair),
            "is_conflict": pair.is_conflict,
            "is_across_splits": pair.is_across_splits,
            "files": [_Shown(row, _picture(images, row)) for row in (pair.first, pair.second)],
        }
        for pair in pairs
    ]
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(audit=audit, pairs=shown)
    write_atomic(file, lambda part: part.write_text(page, encoding="utf-8"))


def visible(text: object) -> str:
    """`text` on one line, control and direction-override characters written as their code, `\\u202e`."""
    return "".join(
        " "
        if character.isspace()
        else f"\\u{ord(character):04x}"
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")
        else character
        for character in str(text)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _count(number: int) -> str:
    return f"{number:,}"


def _evidence(pair: WorstPair) -> str:
    words = _EVIDENCE[pair.link.kind]
    words += "" if pair.link.kind == "byte_copy" else f" {pair.link.score:.3f}"
    return words if pair.link.symmetry in ("", "upright") else f"{words}, {pair.link.symmetry}"


def _picture(images: str | None, row: IndexRow) -> str:
    """A small JPEG of a photograph as a data URI."""
    if images is None:
        return ""
    image, _ = decode_rgb(read_checked(images, row))
    image.thumbnail((_PICTURE_PX, _PICTURE_PX), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
