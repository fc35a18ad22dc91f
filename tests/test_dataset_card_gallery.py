"""What a gallery's files hold; what they do in a browser is in test_dataset_card_gallery_browser.py."""

import hashlib
import io
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.foreign_text import script_json, visible
from builders.thumbnail import thumbnail
from dataset_card.gallery.command import gallery
from dataset_card.gallery.write import GalleryConfig, write_gallery

NASTY_TEXT = (
    '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c \x07 & "q" \u2028'
)


class Page(HTMLParser):
    """The page's elements as (name, attributes), and the content of its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append((tag, dict(attrs), ""))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style") and self.raw and data.strip():
            tag, attributes, before = self.raw[-1]
            self.raw[-1] = (tag, attributes, before + data)

    def json(self, name):
        return next(json.loads(text) for _, attributes, text in self.raw if attributes.get("id") == name)


@pytest.fixture
def dataset(photographs, make_run, tmp_path):
    """Two sets over 26 photographs; the second lacks those whose id starts with `a`, and says nasty things."""
    second = make_run("other", text=lambda row: f"{NASTY_TEXT} {row.path}", keep=lambda row: row.image_id[0] != "a")
    config = BuildConfig(images=photographs, runs=(make_run(), second), out=tmp_path / "dataset", allow_partial=True)
    build(config)
    return tmp_path / "dataset"


@pytest.fixture
def write(dataset, photographs, tmp_path):
    """A function that writes a gallery of `dataset` with the photographs and gives its summary."""

    def call(**changes):
        config = {"dataset": str(dataset), "out": tmp_path / "gallery.html", "images": str(photographs), **changes}
        return write_gallery(GalleryConfig.model_validate(config))

    return call


def received(script: Path):
    """What a script beside the page hands over."""
    found = re.fullmatch(r'vlDermnetReceive\("([^"]+)",(.*)\)\n', script.read_text(), flags=re.DOTALL)
    assert found is not None
    assert found[1] == script.name
    return json.loads(found[2])


def files_of(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_small_dataset_is_one_page_that_needs_no_other_file(write, tmp_path):
    summary = write()
    assert summary.is_one_page
    assert (summary.n_photographs, summary.n_pictures, summary.n_missing, summary.n_changed) == (26, 26, 0, 0)
    assert not (tmp_path / "gallery_files").exists()
    page = Page((tmp_path / "gallery.html").read_text())
    assert [attributes for _, attributes in page.elements if {"src", "href"} & attributes.keys()] == [
        {"class": "skip", "href": "#photographs"}
    ]
    pictures = page.json("pictures")
    assert len(pictures) == 23  # copies share one
    for name, jpeg in pictures.items():
        with Image.open(io.BytesIO(b64decode(jpeg))) as image:
            assert image.size in ((24, 16), (16, 24)), name


def test_a_large_dataset_is_a_page_and_a_folder_with_the_same_content(write, tmp_path):
    write()
    one = Page((tmp_path / "gallery.html").read_text())
    summary = write(one_page_rows=25)
    assert not summary.is_one_page
    folder = tmp_path / "gallery_files"
    about = Page((tmp_path / "gallery.html").read_text()).json("about")
    assert about["folder"] == "gallery_files"
    inside = one.json("about")
    assert received(folder / about["rows"]) == one.json(inside["rows"])
    for names, ids in zip(about["texts"], inside["texts"], strict=True):
        assert [received(folder / name) for name in names] == [one.json(name) for name in ids]
    assert len(list((folder / "thumbnails").rglob("*.jpg"))) == 23
    assert summary.n_bytes == len((tmp_path / "gallery.html").read_bytes()) + sum(map(len, files_of(folder).values()))
    write()
    assert not folder.exists()  # small again: the folder of the larger one is gone


def test_every_row_of_every_set_is_there_in_order(write, dataset, tmp_path):
    write()
    page = Page((tmp_path / "gallery.html").read_text())
    about = page.json("about")
    rows = page.json(about["rows"])
    assert [each["name"] for each in about["sets"]] == ["tiny-doctor", "other"]
    order = [
        (rows["words"]["label"][n], -ord(rows["words"]["split"][m][1]), p)
        for n, m, p in zip(rows["label"], rows["split"], rows["path"], strict=True)
    ]
    assert order == sorted(order)
    for number, name in enumerate(("tiny-doctor", "other")):
        shards = pa.concat_tables([pq.read_table(shard) for shard in sorted((dataset / name).glob("*.parquet"))])
        expected = {row["image_id"]: row for row in shards.to_pylist()}
        texts = page.json(about["texts"][number][0])
        for image_id, said, flags in zip(rows["image_id"], texts, rows["flags"][number], strict=True):
            if image_id not in expected:
                assert said is None
                assert flags is None
                continue
            description = expected[image_id]["description"]
            assert said["text"] == visible(description)
            assert said["id"] == hashlib.sha256(description.encode()).hexdigest()[:16]
            assert [rows["words"]["flags"][flag] for flag in flags] == expected[image_id]["flags"]
    copies = [rows["words"]["duplicate_group"][group] for group in rows["duplicate_group"]]
    assert sum(map(bool, copies)) == 6


def test_the_same_dataset_gives_the_same_bytes_and_makes_no_thumbnail_twice(write, tmp_path):
    write(one_page_rows=0)
    page, files = (tmp_path / "gallery.html").read_bytes(), files_of(tmp_path / "gallery_files")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "gallery_files").rglob("*.jpg")}
    again = write(one_page_rows=0, images=None)  # nothing needs the photographs any more
    assert again.n_pictures == 26
    assert (page, files) == ((tmp_path / "gallery.html").read_bytes(), files_of(tmp_path / "gallery_files"))
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_damaged_thumbnail_is_made_again(write, tmp_path):
    write(one_page_rows=0)
    files = files_of(tmp_path / "gallery_files")
    next((tmp_path / "gallery_files").rglob("*.jpg")).write_bytes(b"")
    write(one_page_rows=0)
    assert files_of(tmp_path / "gallery_files") == files


def test_what_an_older_gallery_needed_goes_and_other_files_stay(write, tmp_path):
    write(one_page_rows=0)
    (tmp_path / "gallery_files" / "mine.txt").write_text("keep")
    (tmp_path / "gallery_files" / "thumbnails" / "mine.jpg").write_text("keep")
    write(one_page_rows=0, thumbnail_px=20, set_names=("other",))
    names = set(files_of(tmp_path / "gallery_files"))
    assert {"mine.txt", "thumbnails/mine.jpg"} <= names
    assert not [name for name in names if name.endswith("-384.jpg")]
    assert len([name for name in names if name.startswith("texts-")]) == 1
    write()
    assert set(files_of(tmp_path / "gallery_files")) == {"mine.txt", "thumbnails/mine.jpg"}


def test_a_crash_leaves_the_old_gallery_whole(write, tmp_path, photographs):
    write(one_page_rows=0)
    page, files = (tmp_path / "gallery.html").read_bytes(), files_of(tmp_path / "gallery_files")

    class Crash(BaseException):
        pass

    def crash(photographs, total, what):
        yield next(iter(photographs))
        raise Crash

    config = GalleryConfig(
        dataset=str(tmp_path / "dataset"),
        out=tmp_path / "gallery.html",
        images=str(photographs),
        thumbnail_px=16,
        one_page_rows=0,
    )
    with pytest.raises(Crash):
        write_gallery(config, track=crash)
    assert (tmp_path / "gallery.html").read_bytes() == page
    assert files.items() <= files_of(tmp_path / "gallery_files").items()


def test_foreign_text_cannot_end_a_script_or_turn_the_writing_round(write, tmp_path):
    write()
    html = (tmp_path / "gallery.html").read_text()
    page = Page(html)
    assert sum(name == "script" and "type" not in attributes for name, attributes in page.elements) == 1
    assert not [name for name, attributes in page.elements if any(key.startswith("on") for key in attributes)]
    for character in ("\u202e", "\u202c", "\u2028", "\x07"):
        assert character not in html
    texts = page.json(page.json("about")["texts"][1][0])
    said = next(each for each in texts if each)
    assert said["text"].startswith("</script><script>window.ran = 1</script>")
    assert "\\u202egnol\\u202c \\u0007 &" in said["text"]


def test_the_policy_lets_exactly_the_pages_own_script_and_style_run(write, tmp_path):
    write()
    page = Page((tmp_path / "gallery.html").read_text())
    policy = next(attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes, text in page.raw:
        if attributes.get("type") != "application/json":
            digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy, tag


def test_photographs_that_are_not_here_or_changed_are_told_and_shown_without_picture(write, photographs, tmp_path):
    (photographs / "train/papule/pap-1.jpg").unlink()
    (photographs / "train/papule/pap-3.jpg").write_bytes((photographs / "train/papule/pap-4.jpg").read_bytes())
    (photographs / "train/papule/pap-0.jpg").unlink()  # its copy in test stands for it
    said = []
    config = GalleryConfig(dataset=str(tmp_path / "dataset"), out=tmp_path / "gallery.html", images=str(photographs))
    summary = write_gallery(config, say=said.append)
    assert (summary.n_pictures, summary.n_missing, summary.n_changed) == (24, 1, 1)
    assert said == [
        f"1 of 26 photographs are not in {photographs}: train/papule/pap-1.jpg",
        f"1 of 26 photographs in {photographs} have other bytes: train/papule/pap-3.jpg",
    ]


def test_a_dataset_with_photographs_inside_needs_no_folder(photographs, make_run, tmp_path):
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))
    config = GalleryConfig(dataset=str(tmp_path / "dataset"), out=tmp_path / "gallery.html")
    assert write_gallery(config).n_pictures == 26
    with pytest.raises(UserError) as caught:
        write_gallery(config.model_copy(update={"images": str(photographs)}))
    assert str(caught.value) == "the set 'tiny-doctor' holds its photographs already\n  fix: leave out --images"


def test_without_photographs_it_is_a_gallery_of_texts(dataset, tmp_path):
    said = []
    summary = write_gallery(GalleryConfig(dataset=str(dataset), out=tmp_path / "gallery.html"), say=said.append)
    assert summary.n_pictures == 0
    assert said == ["the dataset holds no photographs: a gallery of texts; with --images ROOT local ones are shown"]


def test_findings_and_earlier_reviews_are_shown_as_names_and_values(dataset, tmp_path):
    for shard in (dataset / "other").glob("*.parquet"):
        table = pq.read_table(shard)
        values = ['{"colour": ["red", "\\u202e<b>"], "border": "raised"}', "{damaged", "[1]", ""]
        columns = {"findings": values * 9, "review": ["wrong"] * 36, "review_note": ["no\u202e"] * 36}
        for name, column in columns.items():
            table = table.append_column(name, pa.array(column[: table.num_rows]))
        pq.write_table(table.replace_schema_metadata(pq.read_schema(shard).metadata), shard)
    write_gallery(GalleryConfig(dataset=str(dataset), out=tmp_path / "gallery.html", set_names=("other",)))
    page = Page((tmp_path / "gallery.html").read_text())
    texts = [said for said in page.json(page.json("about")["texts"][0][0]) if said]
    assert {json.dumps(said["findings"]) for said in texts} == {
        '[["colour", "red, \\\\u202e<b>"], ["border", "raised"]]',
        '[["findings", "{damaged"]]',
        '[["findings", "[1]"]]',
        "[]",
    }
    assert texts[0]["facts"][-1] == "reviewed before: wrong no\\u202e"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"out": "{tmp}/photographs/train/papule/pap-0.jpg"},
            "a gallery is a page, and '{tmp}/photographs/train/papule/pap-0.jpg' does not end in .html\n"
            "  fix: --out '{tmp}/photographs/train/papule/pap-0.html'",
        ),
        (
            {"out": "{tmp}/mine.html"},
            "{tmp}/mine.html is there and is no gallery; it was left as it is\n  fix: choose another --out",
        ),
        (
            {"out": "{tmp}/dataset/sub/gallery.html"},
            "{tmp}/dataset/sub/gallery.html is inside the dataset {tmp}/dataset: `publish` would publish the"
            " photographs with it\n  fix: --out 'gallery.html'",
        ),
        ({"set_names": ("othr",)}, "unknown description set 'othr'; choose one of: tiny-doctor, other"),
        (
            {"images": "{tmp}/photographs/train"},
            "none of the 26 photographs of {tmp}/dataset is in {tmp}/photographs/train, by path and sha256\n"
            "  fix: point --images to what was indexed, or leave it out for a gallery of texts",
        ),
    ],
)
def test_a_mistake_says_what_to_type_next(write, tmp_path, changes, message):
    (tmp_path / "mine.html").write_text("<p>mine")
    filled = {key: value.format(tmp=tmp_path) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(UserError) as caught:
        write(**filled)
    assert str(caught.value) == message.format(tmp=tmp_path)
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


@pytest.mark.parametrize(("column", "n_digits"), [("image_sha256", 64), ("image_id", 16)])
def test_ids_that_would_become_paths_or_formulas_are_refused(write, dataset, column, n_digits):
    for shard in (dataset / "other").glob("*.parquet"):
        table = pq.read_table(shard)
        forged = pa.array(["../../escaped"] * table.num_rows)
        table = table.set_column(table.schema.get_field_index(column), column, forged)
        pq.write_table(table.replace_schema_metadata(pq.read_schema(shard).metadata), shard)
    with pytest.raises(UserError) as caught:
        write()
    assert str(caught.value) == (
        f"{dataset}/other was not made by `vl-dermnet build`: not every {column} is of {n_digits} hex digits"
    )


def test_a_thumbnail_is_upright_small_and_says_nothing_of_its_source():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    source = io.BytesIO()
    Image.new("RGB", (600, 400), "red").save(source, "JPEG", exif=exif, comment=b"patient 7", icc_profile=b"profile")
    small = thumbnail(source.getvalue(), 90)
    assert (small.width_px, small.height_px) == (60, 90)
    with Image.open(io.BytesIO(small.jpeg)) as image:
        assert image.size == (60, 90)
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not image.getexif()


def test_json_for_a_script_comes_back_as_it_was():
    value = {"a": ["</script>", "<!--", "&amp;", "\u2028", 'q"', "\\"]}
    assert json.loads(script_json(value)) == value
    assert not set(script_json(value)) & set("<>&\u2028\u2029")


def test_the_command_prints_what_it_wrote(dataset, photographs, tmp_path):
    app = typer.Typer()
    app.command()(gallery)
    out = tmp_path / "new" / "gallery.html"
    result = CliRunner().invoke(app, [str(dataset), "--images", str(photographs), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"26 photographs, 26 with a picture, described by tiny-doctor, other\ngallery: {out}   (open it in a browser)\n"
    )
    result = CliRunner().invoke(app, [str(dataset), "--images", str(photographs), "--out", str(out), "--json"])
    assert json.loads(result.stdout)["n_pictures"] == 26
