"""Plots drawn with Pillow alone: the same numbers give the same bytes, and each file carries its numbers.

A plot is a dict that goes through JSON unchanged; `kind` names the function that draws it. Each brings its own light
ground, so that it reads the same on a light and on a dark page.
"""

import io
import json
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL
from PIL import Image, ImageColor, ImageDraw, ImageFont, PngImagePlugin, features

from builders.decode import DAMAGE

Plot = dict[str, Any]
WIDTH_PX = 1600  # shown at half of it, for dense screens
GROUND, INK, FAINT, RULE = "#fafaf8", "#1f2328", "#57606a", "#d5d8dc"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito 2008: told apart by every kind of colour vision
_DARK_PERCENT = 69  # up to here black is read better on a field of a heat plot, above it white; both at 4.5 : 1
_MARGIN_PX, _LABEL_PX, _BAR_PX, _GAP_PX = 48, 460, 28, 14
_NUMBERS = "vl-dermnet"  # the text chunk with the plot as JSON
_SOFTWARE = (
    f"plots 2, Pillow {PIL.__version__}, FreeType {features.version('freetype2')}, zlib {features.version('zlib')}"
)


def png_of(plot: Plot) -> bytes:
    """The plot as PNG, with itself as JSON and the versions that drew it in text chunks."""
    about = PngImagePlugin.PngInfo()
    about.add_itxt(_NUMBERS, json.dumps(plot, ensure_ascii=False, sort_keys=True))
    about.add_text("Software", _SOFTWARE)
    file = io.BytesIO()
    _few_colours(KINDS[plot["kind"]](plot)).save(file, format="PNG", pnginfo=about)
    return file.getvalue()


def _few_colours(drawn: Image.Image) -> Image.Image:
    """A third of the bytes, and looks alike; the ground, which is in the corner, to the digit."""
    few = drawn.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette, ground = few.getpalette() or [], few.getpixel((0, 0))
    assert isinstance(ground, int)
    palette[3 * ground : 3 * ground + 3] = ImageColor.getrgb(GROUND)
    few.putpalette(palette)
    return few


def plot_in(file: Path) -> tuple[Plot, bool]:
    """The plot that a PNG carries, and whether the versions that drew it are here and draw it again to the byte.

    Raises `ValueError` where it carries none. No pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG",)) as image:
                about = dict(image.info)
        plot = json.loads(str(about.get(_NUMBERS, "null")))
    except (*DAMAGE, RecursionError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"not a PNG with its numbers in it: {error}") from error
    if not isinstance(plot, dict):
        raise ValueError("a PNG without its numbers in it")
    return plot, about.get("Software") == _SOFTWARE


def _draw_bars(plot: Plot) -> Image.Image:
    """Stacked horizontal bars: `rows` are [name, [n, …]] with one n for each of `series`."""
    rows: list[tuple[str, list[int]]] = plot["rows"]
    image, draw, top = _sheet(plot, len(rows) * (_BAR_PX + _GAP_PX) + (56 if len(plot["series"]) > 1 else 0))
    if len(plot["series"]) > 1:
        _legend(draw, plot["series"], top)
        top += 56
    left, right = _MARGIN_PX + _LABEL_PX, WIDTH_PX - _MARGIN_PX - 150
    longest = max((sum(counts) for _, counts in rows), default=0) or 1
    for name, counts in rows:
        _text_right(draw, _cut(name, _LABEL_PX - 24), left - 16, top)
        x = left
        for number, count in enumerate(counts):
            width = round((right - left) * count / longest)
            if width:
                draw.rectangle((x, top, x + width - 1, top + _BAR_PX - 1), COLOURS[number % len(COLOURS)])
            x += width
        draw.text((x + 12, top - 1), f"{sum(counts):,}", INK, _font(24))
        top += _BAR_PX + _GAP_PX
    return image


def _draw_histogram(plot: Plot) -> Image.Image:
    """Upright bars: `counts` of the bins that start at `start` and are `width` wide, `marks` as [name, value] lines."""
    image, draw, top = _sheet(plot, 520)
    left, right, floor = _MARGIN_PX + 96, WIDTH_PX - _MARGIN_PX, top + 430
    counts: list[int] = plot["counts"]
    start, width, most = plot["start"], plot["width"], max(plot["counts"], default=0) or 1
    per_bin = (right - left) / max(1, len(counts))
    for share in (0.0, 0.5, 1.0):
        y = floor - round(share * (floor - top - 40))
        draw.line((left, y, right, y), RULE, 2)
        _text_right(draw, f"{round(share * most):,}", left - 16, y - 14)
    for number, count in enumerate(counts):
        height = round((floor - top - 40) * count / most)
        if count:
            x = left + number * per_bin
            draw.rectangle((round(x) + 1, floor - max(2, height), round(x + per_bin) - 2, floor), COLOURS[0])
    for number in sorted({round(place * len(counts) / 4) for place in range(5)}):
        draw.text((left + number * per_bin, floor + 12), f"{start + number * width:,}", INK, _font(24), anchor="ma")
    draw.text(((left + right) // 2, floor + 50), plot["axis"], FAINT, _font(24), anchor="ma")
    for name, value in plot["marks"]:
        x = left + (value - start) / width * per_bin
        draw.line((round(x), top + 34, round(x), floor), COLOURS[1], 3)
        anchor = "ra" if x > (left + right) / 2 else "la"
        draw.text(
            (round(x) + (-10 if anchor == "ra" else 10), top), f"{name} {value:,g}", INK, _font(24), anchor=anchor
        )
    return image


def _draw_heat(plot: Plot) -> Image.Image:
    """A field per row and column, the darker the greater its share (0 to 100 %), which is written into it."""
    rows: list[tuple[str, list[int]]] = plot["rows"]
    columns: list[str] = plot["columns"]
    cell_px = 40
    image, draw, top = _sheet(plot, 190 + len(rows) * cell_px)
    left, right = _MARGIN_PX + _LABEL_PX, WIDTH_PX - _MARGIN_PX
    per_column = (right - left) / max(1, len(columns))
    for number, name in enumerate(columns):
        _text_upwards(image, _cut(name, 175), round(left + (number + 0.5) * per_column), top + 180)
    top += 190
    for name, percents in rows:
        _text_right(draw, _cut(name, _LABEL_PX - 24), left - 16, top + 6)
        for number, percent in enumerate(percents):
            x = left + number * per_column
            box = (round(x), top, round(x + per_column) - 3, top + cell_px - 3)
            draw.rectangle(box, _shade(percent))
            ink = "white" if percent > _DARK_PERCENT else "black"
            draw.text(((box[0] + box[2]) // 2, top + 6), str(percent), ink, _font(22), anchor="ma")
        top += cell_px
    return image


KINDS: dict[str, Callable[[Plot], Image.Image]] = {
    "bars": _draw_bars,
    "heat": _draw_heat,
    "histogram": _draw_histogram,
}


def _sheet(plot: Plot, height_px: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """An empty sheet with title and note, its pen, and where the plot begins."""
    top = _MARGIN_PX + 106
    image = Image.new("RGB", (WIDTH_PX, top + height_px + _MARGIN_PX), GROUND)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN_PX, _MARGIN_PX - 10), _cut(plot["title"], WIDTH_PX - 2 * _MARGIN_PX, 36), INK, _font(36))
    draw.text((_MARGIN_PX, _MARGIN_PX + 42), _cut(plot["note"], WIDTH_PX - 2 * _MARGIN_PX), FAINT, _font(24))
    return image, draw, top


def _legend(draw: ImageDraw.ImageDraw, names: list[str], top: int) -> None:
    x = _MARGIN_PX + _LABEL_PX
    for number, name in enumerate(names):
        draw.rectangle((x, top + 4, x + 24, top + 28), COLOURS[number % len(COLOURS)])
        draw.text((x + 36, top), name, INK, _font(24))
        x += 36 + round(_font(24).getlength(name)) + 48


def _shade(percent: int) -> tuple[int, int, int]:
    """From nearly the ground (0 %) to a dark blue (100 %)."""
    light, dark = (240, 243, 246), (0, 68, 120)
    return (
        round(light[0] + (dark[0] - light[0]) * percent / 100),
        round(light[1] + (dark[1] - light[1]) * percent / 100),
        round(light[2] + (dark[2] - light[2]) * percent / 100),
    )


def _text_right(draw: ImageDraw.ImageDraw, text: str, right: int, top: int) -> None:
    draw.text((right, top), text, INK, _font(24), anchor="ra")


def _text_upwards(image: Image.Image, text: str, x: int, bottom: int) -> None:
    width = max(1, round(_font(24).getlength(text)))
    label = Image.new("RGB", (width + 4, 32), GROUND)
    ImageDraw.Draw(label).text((0, 0), text, INK, _font(24))
    image.paste(label.rotate(90, expand=True), (x - 16, bottom - width - 4))


def _cut(text: str, width_px: int, size: int = 24) -> str:
    """`text` on one line, no wider than that; characters that do not print or that the font lacks are shown as �."""
    shown = "".join(each if _is_in_font(each) else "�" for each in text)
    if _font(size).getlength(shown) <= width_px:
        return shown
    while shown and _font(size).getlength(shown + "…") > width_px:
        shown = shown[:-1]
    return shown.rstrip() + "…"


def _is_in_font(character: str) -> bool:
    return character == "…" or (ord(character) < 0x180 and unicodedata.category(character) not in ("Cc", "Cf"))


_FONTS: dict[int, ImageFont.FreeTypeFont] = {}


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which every installation has."""
    if size not in _FONTS:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        _FONTS[size] = font
    return _FONTS[size]
