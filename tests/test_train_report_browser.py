"""What a report does in a real headless Chromium, opened from the disk; skipped where there is no Chromium."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.build import BuildConfig, build
from builders.files import write_json, write_table
from tests.browser import NEEDS_CHROMIUM
from train.data import Examples
from train.evaluate import PIXELS, logits_table
from train.report.write import write_report

pytestmark = NEEDS_CHROMIUM
NASTY_TEXT = '</style><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c & red skin'


@pytest.fixture
def report(tmp_path, photographs, make_run):
    """A report with every part: two protocols, two models, a dataset of nasty labels and texts, photographs."""
    dataset, folder, rng = tmp_path / "dataset", tmp_path / "a #report %41", np.random.default_rng(0)
    build(BuildConfig(images=photographs, runs=(make_run(text=lambda row: NASTY_TEXT),), out=dataset))
    shards = sorted((dataset / "tiny-doctor").glob("*.parquet"))
    names = json.loads(pq.read_schema(shards[0]).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    ids = [row["image_id"] for row in rows]
    texts = [row["description"] for row in rows]
    labels = np.asarray([row["label"] for row in rows])
    examples = Examples(ids, ids, labels, tuple(names), texts, ids, {}, None, 0)
    places = np.arange(len(rows))
    pixels = {"resize": "exact", "resize_px": [16, 16], "crop_px": [16, 16], "resample": 2, "rescale_factor": 1 / 255}
    pixels |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    history = [
        {"epoch": n, "train_loss": 2 / n, "validation_loss": 3 / n, "validation_macro_f1": 1 - 1 / n}
        for n in range(1, 9)
    ]
    for name in ("concat-official-0", "attention_pooling-official-0", "attention_pooling-clean-0"):
        for kind in ("validation", "predictions", "missing"):
            logits = rng.normal(size=(len(rows), len(names)))
            logits[places, labels] += 1.5 if name.startswith("attention") else 0.5
            table = logits_table(examples, places, logits.astype(np.float32))
            if kind == "missing":
                table = pa.concat_tables(
                    [table.append_column("missing", pa.array([m] * len(rows))) for m in ("text", "image")]
                )
            write_table(folder / kind / f"{name}.parquet", table)
        training = {"history": history, "best": history[-1], "n_train": 20, "n_validation": 5, "seconds": 2.0}
        write_json(folder / "models" / name / "config.json", {"class_names": names, "training": training})
        if name.startswith("attention"):
            attention = [
                {
                    "image_id": row["image_id"],
                    "is_sampled": True,
                    "patch_rows": 4,
                    "patch_columns": 4,
                    "patch_weights": rng.dirichlet(np.ones(16)).tolist(),
                    "class_token_weight": 0.1,
                    "text": row["description"],
                    "word_starts": [0, 8, 20, 40],
                    "word_ends": [8, 16, 40, 50],
                    "word_weights": [0.1, 0.2, 0.3, 0.4],
                    "n_words_read": 4,
                    "special_token_weight": 0.0,
                }
                for row in rows
                if row["description"]
            ]
            table = pa.Table.from_pylist(attention).replace_schema_metadata({PIXELS: json.dumps(pixels)})
            write_table(folder / "attention" / f"{name}.parquet", table)
            about = {"before": 0.8, "without_top": 0.5, "without_random": 0.7}
            tests = [
                {"image_id": each, "group": each, "modality": modality, "percent": percent, **about}
                for each in ids
                for modality in ("image", "text")
                for percent in (5, 10, 20, 40)
            ]
            write_table(folder / "deletion" / f"{name}.parquet", pa.Table.from_pylist(tests))
    for protocol in ("official", "clean"):
        distances = {"image_id": ids, "distance": rng.random(len(ids)), "nearest": ids}
        write_table(folder / "distances" / f"{protocol}.parquet", pa.table(distances))
    write_json(folder / "config.json", {"dataset": str(dataset), "images": str(photographs), "epochs": 8})
    return write_report(folder)


def test_every_picture_is_shown_and_no_foreign_text_runs(report, open_page):
    page = open_page(report, wait_for="body")
    assert page.evaluate("window.ran") is None
    assert page.locator("img").count() >= 12
    assert page.evaluate("[...document.images].every((each) => each.complete && each.naturalWidth > 0)")
    assert page.locator("svg[role=img]").count() >= 10
    assert page.evaluate(
        """[...document.querySelectorAll("svg[role=img] text")].every((each) => {
        const a = each.getBoundingClientRect(), b = each.ownerSVGElement.getBoundingClientRect();
        return a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1 })"""
    ), "a label is cut off by the edge of its plot"
    assert "\u202e" not in page.locator("body").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(report, open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = open_page(report, wait_for="body", color_scheme=scheme, bypass_csp=True)
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 20, 23)"}[scheme]


def test_it_fits_a_phone_nothing_moves_and_wide_tables_scroll_by_key(report, open_page):
    page = open_page(report, wait_for="body", viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.getAnimations().length") == 0
    table = page.locator(".scroll").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    assert table.evaluate("(each) => each.scrollLeft") > 0


def test_the_keyboard_reaches_the_content_and_its_parts(report, open_page):
    page = open_page(report, wait_for="body")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_role("link", name="Hardest errors").click()
    assert page.evaluate("document.getElementById('errors').getBoundingClientRect().top") < 100


def test_paper_is_light_and_holds_every_part(report, open_page):
    page = open_page(
        report, wait_for="body", color_scheme="dark", viewport={"width": 703, "height": 1000}
    )  # A4 less its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 703
    assert page.locator("h2").count() >= 8
    assert page.pdf()[:5] == b"%PDF-"
