import io
import struct
import subprocess
import sys
import zlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from builders.build import BuildConfig, build
from builders.dataset_folder import read_sets
from dataset_card import drawing, plots
from dataset_card.card import write_card
from dataset_card.drawing import KINDS, WIDTH_PX, plot_in, png_of
from dataset_card.plots import MAX_BINS, MAX_ROWS, plots_of
from dataset_card.statistics import count_set

EXAMPLES = {
    "bars": {
        "kind": "bars",
        "title": "tiny: rows per class",
        "note": "7 rows",
        "series": ["train", "test"],
        "rows": [["acne", [3, 1]], ["a\u202eb <i> שלום " * 9, [3, 0]], ["none", [0, 0]]],
    },
    "heat": {
        "kind": "heat",
        "title": "words",
        "note": "in per cent",
        "columns": ["red", "a-very-long-word-that-is-cut-somewhere"],
        "rows": [["acne", [0, 100]], ["wart", [55, 70]]],
    },
    "histogram": {
        "kind": "histogram",
        "title": "lengths",
        "note": "3 rows",
        "axis": "words",
        "start": 10,
        "width": 5,
        "counts": [1, 0, 2],
        "marks": [["median", 21.5]],
    },
}


@pytest.fixture
def statistics(photographs, make_run, tmp_path):
    runs = (make_run(), make_run("other", text=lambda row: f"{len(row.path) * 'word '}"))
    build(BuildConfig(images=photographs, runs=runs, out=tmp_path / "out"))
    return {each.name: count_set(each) for each in read_sets(tmp_path / "out")}


def contrast(first: str | tuple[int, ...], second: str | tuple[int, ...]) -> float:
    """The contrast ratio of WCAG 2.2, 1 to 21."""

    def luminance(colour):
        channels = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_same_numbers_give_the_same_bytes_and_stand_in_the_file(kind, tmp_path):
    plot = EXAMPLES[kind]
    file = tmp_path / "plot.png"
    file.write_bytes(png_of(plot))
    assert png_of(plot) == file.read_bytes()
    assert plot_in(file) == (plot, True)
    with Image.open(file) as image:
        assert (image.format, image.width) == ("PNG", WIDTH_PX)
        assert image.convert("RGB").getpixel((0, 0)) == ImageColor.getrgb(drawing.GROUND)  # no transparent ground


def test_a_picture_that_claims_more_pixels_than_anybody_has_is_refused(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    file = tmp_path / "bomb.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )
    with pytest.raises(ValueError, match="exceeds limit"):
        plot_in(file)


def test_another_process_draws_the_same_bytes(tmp_path):
    code = f"import sys; from dataset_card.drawing import png_of; sys.stdout.buffer.write(png_of({EXAMPLES['bars']!r}))"
    drawn = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert drawn.stdout == png_of(EXAMPLES["bars"])


def test_everything_written_on_a_plot_can_be_read():
    assert contrast(drawing.INK, drawing.GROUND) > 12
    assert contrast(drawing.FAINT, drawing.GROUND) > 4.5
    assert all(contrast(colour, drawing.GROUND) > 2.8 for colour in drawing.COLOURS)
    for percent in range(101):
        ink = "white" if percent > drawing._DARK_PERCENT else "black"
        assert contrast(ink, drawing._shade(percent)) > 4.5


def test_text_that_the_font_lacks_and_text_that_is_too_long_stay_inside():
    assert drawing._cut("a\u202eb שלום", 400) == "a�b ����"
    cut = drawing._cut("word " * 60, 300)
    assert cut.endswith("…")
    assert drawing._font(24).getlength(cut) <= 300


def test_each_set_has_its_plots_and_their_numbers_are_the_rows(statistics):
    made = plots_of(statistics)
    per_set = ("flags", "lengths", "terms", "tokens")
    assert sorted(made) == sorted(["classes.png", *(f"{name}-{each}.png" for name in statistics for each in per_set)])
    assert sum(sum(counts) for _, counts in made["classes.png"]["rows"]) == 26
    assert sum(made["other-lengths.png"]["counts"]) == 26
    assert made["other-flags.png"]["rows"] == [["truncated", [6]]]
    assert made["other-terms.png"]["columns"] == ["word"]
    assert {percent for _, percents in made["other-terms.png"]["rows"] for percent in percents} == {100}
    for plot in made.values():
        with Image.open(io.BytesIO(png_of(plot))) as image:
            image.load()


@given(st.dictionaries(st.integers(0, 100_000), st.integers(1, 50), min_size=1, max_size=40))
def test_a_histogram_holds_every_row_in_few_bins_of_a_round_width(numbers):
    plot = plots._histogram("t", "words", Counter(numbers))
    assert sum(plot["counts"]) == sum(numbers.values())
    assert len(plot["counts"]) <= MAX_BINS + 1
    assert str(plot["width"]).rstrip("0") in {"1", "2", "5"}
    assert plot["start"] <= min(numbers)
    assert plot["counts"][0] > 0 < plot["counts"][-1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=80), st.integers(0, 10**7)), max_size=6))
def test_bars_are_drawn_whatever_their_names_and_numbers_are(rows):
    plot = {**EXAMPLES["bars"], "series": ["rows"], "rows": [[name, [count]] for name, count in rows]}
    with Image.open(io.BytesIO(png_of(plot))) as image:
        image.load()


def test_many_rows_are_added_up_in_a_last_one():
    rows = [[f"class {number}", [number, 1]] for number in range(500)]
    shown = plots._shortened(rows, 2)
    assert len(shown) == MAX_ROWS
    assert shown[-1] == ["441 more", [sum(range(59, 500)), 441]]


def test_each_plot_stands_in_the_card_once_though_one_sets_name_begins_with_anothers(photographs, make_run, tmp_path):
    runs = (make_run("doctor"), make_run("doctor-2"))
    build(BuildConfig(images=photographs, runs=runs, out=tmp_path / "dataset"), finish=write_card)
    text = (tmp_path / "dataset/README.md").read_text(encoding="utf-8")
    plots = [path.name for path in (tmp_path / "dataset/assets").iterdir()]
    assert {"doctor-lengths.png", "doctor-2-lengths.png"} < set(plots)
    assert {text.count(f"(assets/{name})") for name in plots} == {1}
