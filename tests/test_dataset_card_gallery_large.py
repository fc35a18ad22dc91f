"""A gallery of 20,000 rows in a real Chromium: painted within two seconds, and it answers."""

import hashlib
import io
import math
import random

import pytest
from PIL import Image

from builders.features import dataset_features
from builders.files import write_json
from builders.schema import image_id_of
from builders.shards import write_shards
from dataset_card.gallery.write import GalleryConfig, write_gallery
from tests.browser import NEEDS_CHROMIUM, n_found, until

pytestmark = NEEDS_CHROMIUM
N_LARGE = 20_000


@pytest.fixture(scope="module")
def large_gallery(tmp_path_factory):
    """20,000 photographs in two sets, with about 1,100 characters of text each."""
    folder = tmp_path_factory.mktemp("large")
    words = [f"{''.join(random.Random(n).choices('aeioubcdlmnprst', k=6))}" for n in range(3_000)]
    labels = [f"class {number:02d}" for number in range(23)]
    for set_name in ("first", "second"):
        with_images = set_name == "first"
        rows = []
        for number in range(N_LARGE):
            dice = random.Random(f"{set_name} {number}")
            path = f"train/{labels[number % 23]}/photograph-{number:05d}.jpg"
            photograph = io.BytesIO()
            Image.new("RGB", (60, 40), (number % 256, number // 256, 99)).save(photograph, "JPEG")
            rows.append(
                {
                    **({"image": {"bytes": photograph.getvalue(), "path": path}} if with_images else {}),
                    "image_id": image_id_of(path),
                    "image_sha256": hashlib.sha256(photograph.getvalue()).hexdigest(),
                    "path": path,
                    "label": number % 23,
                    "description": " ".join([*dice.choices(words, k=160), f"number{number}"]),
                    "finish_reason": "stop",
                    "temperature": 0.0,
                    "n_image_tokens": 256,
                    "n_prompt_tokens": 300,
                    "n_output_tokens": 200,
                    "n_tiles": 1,
                    "flags": ["truncated"] if number % 50 == 0 else [],
                    "duplicate_group": "",
                    "split_official": "train",
                    "split_clean": "train",
                    "in_balanced_subset": False,
                }
            )
        rows.sort(key=lambda row: row["image_id"])
        (folder / "dataset" / set_name).mkdir(parents=True)
        write_shards(folder / "dataset" / set_name, "train", rows, dataset_features(labels, with_images), 500_000_000)
        build_facts = {"with_images": with_images, "rows_sha256": "0" * 64}
        provenance = {
            "is_primary": with_images,
            "run": {"fingerprint": set_name},
            "summary": None,
            "build": build_facts,
        }
        write_json(folder / "dataset" / "provenance" / f"{set_name}.json", provenance)
    out = folder / "gallery.html"
    assert write_gallery(GalleryConfig(dataset=str(folder / "dataset"), out=out)).n_pictures == N_LARGE
    return out


def test_20000_rows_paint_in_two_seconds_and_answer(large_gallery, open_page):
    quickest_s = math.inf  # other tests share the cores: one quick opening shows what the page can do
    for _ in range(4):
        page = open_page(large_gallery)
        until(page, "[...document.images].slice(0, 2).every((image) => image.naturalWidth > 0)")
        first_card_s = page.evaluate("performance.now()") / 1000  # the first page of photographs, as a script sees it
        paints = page.evaluate("performance.getEntriesByType('paint').map((paint) => paint.startTime)")
        quickest_s = min(quickest_s, max(first_card_s, max(paints) / 1000))
        if quickest_s < 2:
            break
    assert quickest_s < 2
    assert page.evaluate("performance.getEntriesByType('resource').length") < 40  # not 20,000 thumbnails
    assert page.locator("article").count() == 50
    assert page.locator("#n-pages").inner_text() == "of 400"
    page.get_by_role("button", name="Last", exact=True).click()
    until(page, "document.getElementById('page').value === '400'")
    page.get_by_label("Flag").select_option("truncated")
    assert n_found(page) == N_LARGE // 50
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Search in the descriptions").fill("number19999")
    until(page, "document.getElementById('count').textContent.startsWith('1 of 20,000')")
    started = page.evaluate("performance.now()")
    page.get_by_label("Search in the descriptions").fill("number1234 ")
    until(page, "document.getElementById('count').textContent.startsWith('11 of 20,000')")
    assert page.evaluate("performance.now()") - started < 10_000  # every text is in memory now
