"""What a gallery does in a real headless Chromium, opened from the disk; skipped where there is no Chromium."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builders.build import BuildConfig, build
from builders.foreign_text import visible
from builders.review import marks_of, read_review
from dataset_card.compare.compare import CompareConfig, compare
from dataset_card.compare.page import write_page
from dataset_card.gallery.write import GalleryConfig, write_gallery
from tests.browser import CHROMIUM, NEEDS_CHROMIUM, n_found, until

pytestmark = NEEDS_CHROMIUM
NASTY_TEXT = (
    '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c <b>bold</b> & \x07'
)


@pytest.fixture(params=[500, 0], ids=["one page", "page and folder"])
def gallery(request, photographs, make_run, tmp_path):
    """A gallery of two sets over 26 photographs; the second lacks some and says nasty things."""
    second = make_run("other", text=lambda row: f"{NASTY_TEXT} {row.path}", keep=lambda row: row.image_id[0] != "a")
    runs = (make_run(), second)
    build(BuildConfig(images=photographs, runs=runs, out=tmp_path / "dataset", allow_partial=True))
    config = GalleryConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "a #gallery %41.html",  # what an address would understand otherwise
        images=str(photographs),
        one_page_rows=request.param,
    )
    write_gallery(config)
    return config.out


def rows_of(gallery, set_name="tiny-doctor"):
    shards = sorted((gallery.parent / "dataset" / set_name).glob("*.parquet"))
    features = pq.read_schema(shards[0]).metadata[b"huggingface"]
    names = json.loads(features)["info"]["features"]["label"]["names"]
    rows = [{**row, "split": shard.name.split("-")[0]} for shard in shards for row in pq.read_table(shard).to_pylist()]
    return [{**row, "label": names[row["label"]]} for row in rows]


def focused(page):
    """What has the focus: element name and, in a gallery's parts, which one."""
    return page.evaluate(
        """() => { const at = document.activeElement, card = at.closest("article");
        const cards = [...document.querySelectorAll("article")];
        return [at.localName, card ? cards.indexOf(card) : null, at.closest(".said")?.dataset.set ?? null] }"""
    )


def test_each_photograph_stands_beside_what_every_set_says_of_it(gallery, open_page):
    page = open_page(gallery)
    expected = {name: {row["image_id"]: row for row in rows_of(gallery, name)} for name in ("tiny-doctor", "other")}
    assert page.locator("article").count() == 26
    for article in page.locator("article").all():
        image_id = article.locator("header p").last.inner_text()
        row = expected["tiny-doctor"][image_id]
        assert article.locator("h2").inner_text() == visible(row["label"])
        sections = article.locator(".said").all()
        assert [section.locator("h3").inner_text() for section in sections] == ["tiny-doctor", "other"]
        for section, name in zip(sections, expected, strict=True):
            if image_id in expected[name]:
                assert section.locator(".text").text_content() == visible(expected[name][image_id]["description"])
            else:
                assert "does not describe" in section.inner_text()
        article.scroll_into_view_if_needed()
        until(article, "card => card.querySelector('img').naturalWidth > 0")


def test_foreign_text_is_text(gallery, open_page):
    page = open_page(gallery)
    assert page.evaluate("window.ran") is None
    assert page.locator("main script, main b, main [onerror]").count() == 0
    text = page.locator("body").inner_text()
    assert "\u202e" not in text
    assert '<script>"x"' in text
    assert "\\u202egnol\\u202c <b>bold</b> & \\u0007" in text
    assert text.count("שלום") >= 26


def test_filters_find_what_the_rows_say(gallery, open_page):
    page = open_page(gallery)
    rows = rows_of(gallery)
    other = {row["image_id"]: row for row in rows_of(gallery, "other")}
    assert n_found(page) == len(rows) == 26
    page.get_by_label("Class").select_option("plaque")
    assert n_found(page) == sum(row["label"] == "plaque" for row in rows)
    page.get_by_label("Split", exact=True).select_option(label="test")
    assert n_found(page) == sum(row["label"] == "plaque" and row["split"] == "test" for row in rows)
    page.get_by_role("button", name="Show all").click()
    assert n_found(page) == 26
    page.get_by_label("Split", exact=True).select_option("split_clean 0")
    assert n_found(page) == sum(row["split_clean"] == "excluded" for row in rows) > 0
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Flag").select_option("truncated")
    assert n_found(page) == sum(bool(row["flags"]) for row in rows) > 0
    page.get_by_label("Flag").select_option("no flag")
    assert n_found(page) == sum(not row["flags"] for row in rows)
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("tiny-doctor (example/tiny-doctor @ 0123456789ab)").uncheck()
    assert n_found(page) == len(other) < 26
    assert page.locator("article").first.locator(".said").count() == 1


def test_search_finds_texts_that_hold_every_word_and_marks_them(gallery, open_page):
    page = open_page(gallery)
    rows = rows_of(gallery)
    word = rows[7]["image_sha256"][:4]
    page.get_by_label("Search in the descriptions").fill(f"PHOTOGRAPH  {word}")
    assert n_found(page) == sum(row["image_sha256"][:4] == word for row in rows)
    assert page.locator("mark").all_inner_texts()[:2] == ["photograph", word]
    page.get_by_label("Search in the descriptions").fill("<b>bold</b> window.ran")
    assert n_found(page) == len(rows_of(gallery, "other"))
    page.get_by_label("Search in the descriptions").fill("(.*")  # a pattern to a program, a word to a person
    assert n_found(page) == 0


def test_copies_are_marked_and_lead_to_each_other(gallery, open_page):
    page = open_page(gallery)
    groups = Counter(row["duplicate_group"] for row in rows_of(gallery))
    del groups[""]
    assert page.locator("button.copies").count() == groups.total() == 6
    page.locator("button.copies").first.click()
    assert n_found(page) == 2
    assert page.locator("button.copies").all_inner_texts() == ["Copy or near-copy: group of 2"] * 2
    assert focused(page)[:2] == ["article", 0]
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Copies").select_option("only")
    assert n_found(page) == 6
    page.get_by_label("Copies").select_option("once")
    assert n_found(page) == 26 - 3


def test_everything_can_be_done_by_keys(gallery, open_page):
    page = open_page(gallery)
    press = page.keyboard.press
    press("j")
    assert focused(page)[:2] == ["article", 0]
    press("j")
    press("ArrowDown")
    press("k")
    assert focused(page)[:2] == ["article", 1]
    press("l")
    assert focused(page) == ["div", 1, "0"]
    press("ArrowRight")
    press("w")
    press("c")
    page.keyboard.type("why? g w u j")  # in a field, keys are letters
    press("Escape")
    assert focused(page) == ["div", 1, "1"]
    section = page.locator("article").nth(1).locator(".said").nth(1)
    assert section.get_by_role("button", pressed=True).all_inner_texts() == ["wrong"]
    assert section.get_by_role("textbox").input_value() == "why? g w u j"
    press("u")
    assert section.get_by_role("button", pressed=True).all_inner_texts() == ["unsure"]
    press("u")
    assert section.get_by_role("button", pressed=True).count() == 0
    press("/")
    assert focused(page)[0] == "input"
    page.keyboard.type("photograph")
    press("Escape")
    page.get_by_role("heading").first.click()
    press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.get_by_label("single keys do something").uncheck()
    press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    before = focused(page)
    press("j")
    assert focused(page) == before


def test_marks_outlive_the_browser_and_travel_as_csv(gallery, chromium, tmp_path):
    def session(folder):
        context = chromium.launch_persistent_context(tmp_path / folder, executable_path=CHROMIUM)
        context.pages[0].goto(gallery.as_uri())
        context.pages[0].wait_for_selector("article")
        return context, context.pages[0]

    context, page = session("first")
    cards = page.locator("article")
    note = 'a "quoted", note\twith ünicode; =1+1'
    ids = [cards.nth(place).locator("header p").last.inner_text() for place in range(4)]
    with_other = [place for place in range(4) if cards.nth(place).locator(".said").nth(1).locator(".text").count()]
    cards.nth(0).locator(".said").nth(0).get_by_role("button", name="good").click()
    cards.nth(1).locator(".said").nth(0).get_by_role("button", name="wrong").click()
    cards.nth(1).locator(".said").nth(0).get_by_role("textbox").fill(note)
    cards.nth(with_other[0]).locator(".said").nth(1).get_by_role("textbox").fill("a note alone")
    page.keyboard.press("Tab")
    assert "3 descriptions reviewed" in page.locator("#review").inner_text()
    context.close()

    context, page = session("first")  # the browser was closed meanwhile
    assert "3 descriptions reviewed" in page.locator("#review").inner_text()
    page.get_by_label("Reviewed as").select_option("wrong")
    assert n_found(page) == 1
    assert page.get_by_role("textbox", name="Note on tiny-doctor").input_value() == note
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    assert download.value.suggested_filename == "review.csv"
    download.value.save_as(tmp_path / "review.csv")
    context.close()

    reviews = read_review(tmp_path / "review.csv")
    texts = {name: {row["image_id"]: row["description"] for row in rows_of(gallery, name)} for name in reviews}
    fitted = {name: marks_of(reviews, name, texts[name]) for name in reviews}
    assert {
        name: {key: (mark.review, mark.review_note) for key, mark in marks.items()} for name, marks in fitted.items()
    } == {
        "tiny-doctor": {ids[0]: ("good", ""), ids[1]: ("wrong", note)},
        "other": {ids[with_other[0]]: ("", "a note alone")},
    }

    context, page = session("second")  # another reviewer's browser
    page.locator("#import-file").set_input_files(tmp_path / "review.csv")
    until(page, "document.getElementById('notice').textContent !== ''")
    assert page.locator("#notice").inner_text() == "3 marks were read from review.csv."
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    assert Path(download.value.path()).read_bytes() == (tmp_path / "review.csv").read_bytes()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    page.locator("#import-file").set_input_files(tmp_path / "other.csv")
    until(page, "document.getElementById('notice').textContent.startsWith('other')")
    assert "other.csv was not read: its first line is not set_name," in page.locator("#notice").inner_text()
    context.close()


def test_csv_in_the_page_is_csv(gallery, open_page, tmp_path):
    page = open_page(gallery)
    notes = ['"', '""', ",", " x ", "=1", "é", "a,b", "'"]
    ids = [article.locator("header p").last.inner_text() for article in page.locator("article").all()]
    stored = {
        image_id: ["0" * 16, "good", f"{note} line\r\ntwo", "2026-01-01T00:00:00Z"]
        for image_id, note in zip(ids, notes, strict=False)
    }
    elsewhere = {"f" * 16: ["0" * 16, "wrong", "of another dataset by the same model", "2026-01-01T00:00:00Z"]}
    page.evaluate(
        """([name, stored]) => localStorage.setItem(Object.keys(localStorage).find((key) => key.includes(name))
        ?? `vl-dermnet/review/${name}/${JSON.parse(document.getElementById("about").textContent).sets[0].fingerprint}`,
        JSON.stringify(stored))""",
        ["tiny-doctor", stored | elsewhere],
    )
    page.reload()
    page.wait_for_selector("article")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    exported = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    lines = list(csv.reader(io.StringIO(exported, newline=""), strict=True))
    assert {line[1]: line[2:] for line in lines[1:]} == stored
    download.value.save_as(tmp_path / "review.csv")
    page.evaluate("localStorage.clear()")
    page.locator("#import-file").set_input_files(tmp_path / "review.csv")
    until(page, "document.getElementById('notice').textContent !== ''")
    key = page.evaluate("Object.keys(localStorage).find((key) => key.includes('tiny-doctor'))")
    assert json.loads(page.evaluate("key => localStorage.getItem(key)", key)) == stored


def test_a_browser_that_keeps_nothing_says_so_and_still_exports(gallery, open_page):
    forbid = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    page = open_page(gallery, script=forbid)
    assert "keeps no marks for this page (SecurityError): export them" in page.get_by_role("alert").inner_text()
    page.locator("article").first.get_by_role("button", name="good").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    assert Path(download.value.path()).read_text().count(",good,") == 1


def test_the_address_keeps_the_place(gallery, open_page):
    page = open_page(gallery)
    page.get_by_label("Class").select_option("papule")
    page.get_by_label("Search in the descriptions").fill("photo")
    found = n_found(page)
    page.reload()
    page.wait_for_selector("article")
    assert n_found(page) == found
    assert page.get_by_label("Class").locator("option:checked").inner_text() == "papule"
    other = open_page(gallery)
    other.goto(gallery.as_uri() + "#label=99&split=x&page=-7&without=9&group=x&query=%22%3E%3Cscript%3E")
    other.reload()
    until(other, "document.getElementById('count').textContent !== ''")
    assert other.locator("#notice").inner_text() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(gallery, open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = open_page(gallery, color_scheme=scheme, bypass_csp=True)
    page.locator("article").first.get_by_role("button", name="good").first.click()
    page.locator("article").nth(1).get_by_role("button", name="wrong").first.click()
    page.locator("article").nth(2).get_by_role("button", name="unsure").first.click()
    page.get_by_label("Search in the descriptions").fill("photo")
    n_found(page)
    options = {"resultTypes": ["violations"]}
    assert [
        (each["id"], each["nodes"][0]["html"]) for each in axe.run(page, options=options).response["violations"]
    ] == []
    page.get_by_role("button", name="Keys").click()
    assert [each["id"] for each in axe.run(page, options=options).response["violations"]] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(250, 250, 250)", "dark": "rgb(20, 20, 23)"}[scheme]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_has_no_barrier_and_fits_a_phone(gallery, open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    dataset = str(gallery.parent / "dataset")
    found = compare(CompareConfig(dataset=dataset, set_a="tiny-doctor", set_b="other"))
    write_page(gallery.parent / "compare.html", found, dataset, str(gallery.parent / "photographs"))
    page = open_page(gallery.parent / "compare.html", color_scheme=scheme, bypass_csp=True)
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    assert page.locator("article").count() == 20
    page.locator("article").last.scroll_into_view_if_needed()
    until(page, "[...document.images].at(-1).naturalWidth > 0")
    assert page.evaluate("window.ran") is None
    phone = open_page(gallery.parent / "compare.html", viewport={"width": 320, "height": 640})
    assert phone.evaluate("document.documentElement.scrollWidth") <= 320


def test_it_fits_a_phone_and_nothing_in_it_moves(gallery, open_page):
    page = open_page(gallery, viewport={"width": 320, "height": 640}, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.getAnimations().length") == 0
    moving = """[...document.querySelectorAll("*")].filter((each) => { const style = getComputedStyle(each);
        return style.transitionDuration !== "0s" || style.animationName !== "none" }).length"""
    assert page.evaluate(moving) == 0
