"""Plots as inline SVG, by small functions: colours by class, so that a page's style decides them for light and dark."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from train.calibration import Bin

Point = tuple[float, float]
N_STYLES = 8  # of lines; each has a colour, a dash and a marker of its own
_MARKERS = ("circle", "square", "triangle", "diamond")
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 30, 42


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: points from left to right and, where there are any, an interval around each."""

    name: str
    points: list[Point]
    intervals: list[Point] | None = None
    is_faint: bool = False
    has_markers: bool = True
    style: int | None = None  # by default its place among the lines


def line_chart(
    title: str,
    axes: tuple[str, str],
    lines: list[Line],
    y_range: Point | None = None,
    x_names: list[str] | None = None,
    size_px: tuple[int, int] = (360, 230),
) -> Markup:
    """Lines over a common x axis; `x_names` name its whole numbers from 0. What it shows is told in its title too."""
    width, height = size_px
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [
        y for line in lines for pair in line.intervals or [] for y in pair
    ]
    x_low, x_high = _wide(min(xs), max(xs)) if x_names is None else (-0.4, len(x_names) - 0.6)
    y_low, y_high = y_range or _wide(min(ys), max(ys))
    y_ticks = ticks(y_low, y_high)
    if y_range is None:
        y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    else:
        y_ticks = [y for y in y_ticks if y_low <= y <= y_high * (1 + 1e-9)]
    right, floor = width - _RIGHT, height - _BOTTOM

    def at(x: float, y: float) -> tuple[str, str]:
        across = (x - x_low) / (x_high - x_low)
        up = (min(max(y, y_low), y_high) - y_low) / (y_high - y_low)
        return _number(_LEFT + across * (right - _LEFT)), _number(floor - up * (floor - _TOP))

    parts = [_frame_title(title)]
    for y in y_ticks:
        height_px = at(x_low, y)[1]
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_LEFT, height_px, right))
        parts.append(_text(_LEFT - 6, float(height_px) + 4, _tick(y, y_ticks), "end"))
    for x, name in _x_ticks(x_low, x_high, x_names):
        parts.append(_text(float(at(x, y_low)[0]), floor + 16, name, "middle"))
    parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_LEFT, _TOP, floor, right))
    parts.append(_text((_LEFT + right) / 2, height - 8, axes[0], "middle", "label"))
    parts.append(_text(_LEFT, _TOP - 8, axes[1], "start", "label"))
    for number, line in enumerate(lines):
        style = (number if line.style is None else line.style) % N_STYLES
        parts += _drawn(line, style, at)
    return _svg(title, width, height, parts)


def _drawn(line: Line, style: int, at: Callable[[float, float], tuple[str, str]]) -> list[Markup]:
    places = [at(*point) for point in line.points]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    parts = [Markup('<path class="line s{}{}" d="{}"/>').format(style, " faint" if line.is_faint else "", path)]
    for (x, _), interval in zip(line.points, line.intervals or [], strict=False):
        left, low = at(x, interval[0])
        parts.append(
            Markup('<path class="line whisker s{}" d="M{} {}V{}"/>').format(style, left, low, at(x, interval[1])[1])
        )
    if line.has_markers and not line.is_faint:
        parts += [marker(style, float(x), float(y)) for x, y in places]
    return parts


def marker(style: int, x: float, y: float, radius: float = 3.2) -> Markup:
    """The small shape that tells a line apart without its colour."""
    r = radius
    shape = _MARKERS[style % len(_MARKERS)]
    if shape == "circle":
        return Markup('<circle class="mark s{}" cx="{}" cy="{}" r="{}"/>').format(style, _number(x), _number(y), r)
    corners = {
        "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "triangle": ((0, -r * 1.2), (r * 1.1, r), (-r * 1.1, r)),
        "diamond": ((0, -r * 1.3), (r * 1.3, 0), (0, r * 1.3), (-r * 1.3, 0)),
    }[shape]
    path = "M" + "L".join(f"{_number(x + dx)} {_number(y + dy)}" for dx, dy in corners) + "Z"
    return Markup('<path class="mark s{}" d="{}"/>').format(style, path)


def swatch(style: int, with_marker: bool = True) -> Markup:
    """A stretch of a line, for a legend beside the words that name it."""
    mark = marker(style % N_STYLES, 14, 7) if with_marker else Markup("")
    return Markup(
        '<svg class="swatch" width="28" height="14" viewBox="0 0 28 14" aria-hidden="true">'
        '<path class="line s{}" d="M1 7H27"/>{}</svg>'
    ).format(style % N_STYLES, mark)


def reliability_diagram(title: str, bins: tuple[Bin, ...], size_px: tuple[int, int] = (300, 300)) -> Markup:
    """Accuracy by confidence as bars, the gap to the diagonal behind them, and how many rows a bin holds below."""
    width, height = size_px
    right, floor = width - _RIGHT, height - _BOTTOM - 44
    side_x, side_y = right - _LEFT, floor - _TOP
    most = max((each.n for each in bins), default=1) or 1
    parts = [_frame_title(title)]
    for tick in (0, 0.5, 1):
        y = floor - tick * side_y
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_LEFT, _number(y), right))
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "end"))
        parts.append(_text(_LEFT + tick * side_x, height - _BOTTOM + 16, f"{tick:g}", "middle"))
    for each in bins:
        if each.accuracy is None or each.confidence is None:
            continue
        x, bar = _LEFT + each.low * side_x + 0.5, (each.high - each.low) * side_x - 1
        low, high = sorted((each.accuracy, each.confidence))
        parts.append(_rect("bar", x, floor - each.accuracy * side_y, bar, each.accuracy * side_y))
        kind = "over" if each.confidence > each.accuracy else "under"
        parts.append(_rect(kind, x, floor - high * side_y, bar, (high - low) * side_y))
        tall = 34 * each.n / most
        parts.append(_rect("count", x, height - _BOTTOM - tall, bar, tall))
    parts.append(Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(_LEFT, floor, right, _TOP))
    parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_LEFT, _TOP, floor, right))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(_LEFT, height - _BOTTOM, right))
    parts.append(_text(_LEFT - 6, height - _BOTTOM - 12, "n", "end"))
    parts.append(_text((_LEFT + right) / 2, height - 8, "confidence", "middle", "label"))
    parts.append(_text(_LEFT, _TOP - 8, "accuracy", "start", "label"))
    return _svg(title, width, height, parts)


def matrix(title: str, names: list[str], shares: list[list[float]]) -> Markup:
    """A square of cells, the fuller the greater a share in [0, 1]; rows are true classes, columns predicted ones."""
    n = len(names)
    cell = max(16, min(36, 640 // max(1, n)))
    shown = [_cut(name, 28) for name in names]
    label = max(84, 6.2 * max(map(len, shown)) + 16)
    width, height = round(label + n * cell + 16), round(label + n * cell + 8)
    left, top = label, label
    places = [(_number(left + k * cell - 0.5), _number(top + k * cell - 0.5)) for k in range(1, n)]
    rules = "".join(f"M{x} {_number(top)}v{n * cell}M{_number(left)} {y}h{n * cell}" for x, y in places)
    parts = [_frame_title(title), Markup('<path class="grid" d="{}"/>').format(rules)]
    for i, name in enumerate(shown):
        y = top + i * cell + cell / 2 + 4
        parts.append(_text(left - 6, y, name, "end"))
        x = left + i * cell + cell / 2 + 4
        parts.append(
            Markup('<text transform="translate({} {})rotate(-90)">{}</text>').format(_number(x), _number(top - 6), name)
        )
        for j, share in enumerate(shares[i]):
            if share > 0:
                parts.append(
                    Markup('<rect class="cell" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"/>').format(
                        _number(left + j * cell), _number(top + i * cell), cell - 1, cell - 1, f"{share:.3g}"
                    )
                )
            if share >= 0.005:
                parts.append(
                    Markup('<text class="in h{}" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                        round(share * 10), _number(left + j * cell + cell / 2 - 0.5), _number(y), f"{100 * share:.0f}"
                    )
                )
    parts.append(
        Markup('<rect class="outline" x="{}" y="{}" width="{}" height="{}"/>').format(
            _number(left - 0.5), _number(top - 0.5), n * cell, n * cell
        )
    )
    parts.append(_text(left - 8, top - 20, "predicted →", "end", "label"))
    parts.append(_text(left - 8, top - 6, "true ↓", "end", "label"))
    return _svg(title, width, height, parts, "matrix" if cell >= 24 else "matrix small")


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span [low, high]."""
    raw = (high - low) / 4
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1) if low - step < number * step < high + step]


def _x_ticks(low: float, high: float, names: list[str] | None) -> list[tuple[float, str]]:
    if names is not None:
        return list(enumerate(names))
    inside = [x for x in ticks(low, high) if low <= x <= high and float(x).is_integer()]
    return [(x, f"{x:g}") for x in inside]


def _wide(low: float, high: float) -> Point:
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _tick(value: float, every: list[float]) -> str:
    step = min((b - a for a, b in pairwise(every)), default=1.0)
    digits = next((n for n in range(6) if abs(round(step, n) - step) < 1e-9), 6)
    return f"{value:.{digits}f}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _cut(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else text[: n_characters - 1].rstrip() + "…"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    about = Markup(' class="{}"').format(kind) if kind else Markup("")
    return Markup('<text{} x="{}" y="{}" text-anchor="{}">{}</text>').format(
        about, _number(x), _number(y), anchor, text
    )


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, _number(x), _number(y), _number(width), _number(height)
    )


def _frame_title(title: str) -> Markup:
    return Markup("<title>{}</title>").format(title)


def _svg(title: str, width: int, height: int, parts: list[Markup], kind: str = "chart") -> Markup:
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" width="{}" height="{}" viewBox="0 0 {} {}">{}</svg>'
    ).format(kind, title, width, height, width, height, Markup("").join(parts))
