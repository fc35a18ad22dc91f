"""One picture of many sample photographs, each with its class below: what the README shows."""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from builders.files import write_atomic
from builders.sample.photograph import render_photograph

_CELL_PX = (240, 160)
_LABEL_PX = 22
_COLUMNS = 4


def contact_sheet(seed: int, numbers: list[int]) -> Image.Image:
    """Photographs `numbers` of `seed`, cut to 3:2, four in a row."""
    n_rows = -(-len(numbers) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _CELL_PX[0], n_rows * (_CELL_PX[1] + _LABEL_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for place, number in enumerate(numbers):
        photograph = render_photograph(seed, number)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(photograph.jpeg)))
        left, top = place % _COLUMNS * _CELL_PX[0], place // _COLUMNS * (_CELL_PX[1] + _LABEL_PX)
        sheet.paste(
            ImageOps.fit(image, (_CELL_PX[0] - 4, _CELL_PX[1] - 4), Image.Resampling.LANCZOS), (left + 2, top + 2)
        )
        middle = (left + _CELL_PX[0] / 2, top + _CELL_PX[1] + _LABEL_PX / 2 - 3)
        draw.text(middle, photograph.attributes.morphology, fill="black", font=font, anchor="mm")
    return sheet


def main() -> None:
    """Parse and write one JPEG."""
    parser = argparse.ArgumentParser(prog="python -m builders.sample.contact_sheet", description=__doc__)
    parser.add_argument("out", type=Path, help="JPEG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photographs", type=int, nargs="+", default=list(range(12)), help="their numbers")
    options = parser.parse_args()
    sheet = contact_sheet(options.seed, options.photographs)
    write_atomic(options.out, lambda part: sheet.save(part, "JPEG", quality=82))


if __name__ == "__main__":
    main()
