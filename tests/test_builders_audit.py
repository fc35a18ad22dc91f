"""The audit from start to end on rendered photographs: what it finds, what it writes, and what it leaves whole."""

import io
import json
import re
import shutil
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image, ImageOps
from typer.testing import CliRunner

from builders.audit.cli import audit as audit_command
from builders.audit.config import FEATURE_RATIO, AuditConfig
from builders.audit.groups import read_groups
from builders.audit.job import run_audit
from builders.errors import UserError
from builders.index import index_images, write_index
from builders.sample import write_sample
from builders.schema import image_id_of

FILES = ["audit.html", "audit.json", "audit.md", "groups.parquet", "links.parquet", "splits.parquet"]
# file of `photos` -> what it is a near-copy of, and how it was turned
NEAR_COPIES = {
    "test/papule/saved-again.jpg": ("train/papule/papule-1.jpg", "upright"),
    "test/plaque/smaller.png": ("train/plaque/plaque-1.jpg", "upright"),
    "train/macule/mirrored.jpg": ("train/wheal/wheal-1.jpg", "mirrored"),
    "train/vesicle/turned.jpg": ("train/vesicle/vesicle-1.jpg", "turned by 180°"),
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """24 rendered photographs, a copy across splits, one under two labels, broken files."""
    root = tmp_path_factory.mktemp("audit") / "photos"
    write_sample(root, 24, seed=3, broken=True)
    return root


@pytest.fixture
def photos(rendered, tmp_path):
    """`rendered`, and near-copies of some: saved again, smaller and cut by nothing, mirrored, turned."""
    root = tmp_path / "photos"
    shutil.copytree(rendered, root)

    def upright(path):
        return ImageOps.exif_transpose(Image.open(root / path)).convert("RGB")

    upright("train/papule/papule-1.jpg").save(root / "test/papule/saved-again.jpg", quality=40)
    upright("train/plaque/plaque-1.jpg").reduce(2).save(root / "test/plaque/smaller.png")
    ImageOps.mirror(upright("train/wheal/wheal-1.jpg")).save(root / "train/macule/mirrored.jpg")
    upright("train/vesicle/vesicle-1.jpg").rotate(180).save(root / "train/vesicle/turned.jpg", quality=70)
    return root


def run(images, out, **options):
    return run_audit(AuditConfig(images=str(images), out=out, n_workers=0, **options))[0]


def table(file):
    return pq.read_table(file).to_pylist()


def test_every_copy_is_found_and_nothing_else_is(photos, tmp_path):
    audit = run(photos, tmp_path / "audit")
    links = table(tmp_path / "audit/links.parquet")
    near = {
        frozenset((each["first"], each["second"])): each["symmetry"] for each in links if each["kind"] == "near_copy"
    }
    assert near == {
        frozenset((image_id_of(copy), image_id_of(original))): symmetry
        for copy, (original, symmetry) in NEAR_COPIES.items()
    }
    assert (audit.byte_copies.n_surplus, audit.byte_copies.n_conflicts, audit.contents.n_refused) == (2, 1, 5)
    assert audit.groups.n_links == {"byte_copy": 2, "near_copy": 4, "close_features": 0}
    assert audit.groups.n_links_across_labels == {"byte_copy": 1, "near_copy": 1, "close_features": 0}
    assert audit.not_run == {"features": "no --features FILE was given"}


def test_the_derived_splits_hold_each_group_in_one_split_and_no_contradiction(photos, tmp_path):
    run(photos, tmp_path / "audit")
    groups = read_groups(tmp_path / "audit")
    rows = {row["path"]: row for row in table(tmp_path / "audit/splits.parquet")}
    assert {row["image_id"]: row["duplicate_group"] for row in rows.values() if row["duplicate_group"]} == groups
    for copy, (original, _) in NEAR_COPIES.items():
        assert groups[image_id_of(copy)] == groups[image_id_of(original)]
    clean = {path: row["split_clean"] for path, row in rows.items()}
    assert clean["test/papule/saved-again.jpg"] == "excluded"
    assert clean["train/macule/mirrored.jpg"] == clean["train/wheal/wheal-1.jpg"] == "excluded"
    assert clean["train/vesicle/turned.jpg"] == clean["train/vesicle/vesicle-1.jpg"] != "excluded"


def test_the_same_photographs_give_the_same_folder(photos, tmp_path):
    run(photos, tmp_path / "one")
    write_index(tmp_path / "index.parquet", index_images(photos, n_workers=0))
    run(photos, tmp_path / "two", index=tmp_path / "index.parquet")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_list_alone_says_which_parts_were_not_run(photos, tmp_path):
    write_index(tmp_path / "index.parquet", index_images(photos, n_workers=0))
    audit = run(tmp_path / "index.parquet", tmp_path / "audit")
    assert (audit.marks, audit.blank, audit.features) == (None, None, None)
    assert list(audit.not_run) == ["near_copies", "blank", "marks", "features"]
    assert audit.byte_copies.n_surplus == 2
    assert audit.splits is not None
    (tmp_path / "bare.csv").write_text("path\ntrain/a/1.jpg\ntest/a/2.jpg\n")
    bare = run(tmp_path / "bare.csv", tmp_path / "bare")
    assert (bare.splits, bare.not_run["splits"]) == (
        None,
        "the sha256 of some files is not known, so copies could not be kept apart",
    )
    assert not (tmp_path / "bare/splits.parquet").exists()


class _Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def test_the_report_shows_the_worst_pairs_and_loads_nothing(photos, tmp_path):
    run(photos, tmp_path / "audit")
    page = _Page((tmp_path / "audit/audit.html").read_text(encoding="utf-8"))
    assert len(page.addresses) == 2 * (2 + 4)
    assert all(re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", address) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "mirrored" in page.text
    assert "contradicting labels" in page.text


def test_foreign_names_are_text_in_the_report_and_in_the_tables(photographs, tmp_path):
    run(photographs, tmp_path / "audit")
    text = (tmp_path / "audit/audit.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert "script" not in page.tags
    assert "\u202e" not in text
    assert 'a|b <script>"x" `c` \\u202enol' in page.text.replace("gnol", "nol")
    assert "not an image in one of the formats" in page.text


def test_no_path_of_this_machine_is_written(photos, tmp_path):
    run(photos, tmp_path / "audit")
    for name in FILES:
        assert str(tmp_path).encode() not in (tmp_path / "audit" / name).read_bytes()


def test_an_older_audit_is_replaced_and_nothing_else_is(photos, tmp_path):
    out = tmp_path / "audit"
    run(photos, out)
    run(photos, out)
    assert sorted(path.name for path in out.iterdir()) == FILES
    (out / "notes.txt").write_text("weeks of work")
    with pytest.raises(UserError) as caught:
        run(photos, out)
    assert str(caught.value) == (
        f"{out} holds 1 files that no audit wrote, and would lose them: notes.txt\n"
        "  fix: move them away, or choose another --out"
    )
    assert (out / "notes.txt").read_text() == "weeks of work"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"mine is there already and is not an audit's folder; nothing was overwritten"):
        run(photos, mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_place_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "list.csv").write_text("path\ntrain/a/1.jpg\n")
    with pytest.raises(UserError) as caught:
        run(tmp_path / "no such folder", tmp_path / "list.csv/audit")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/list.csv/audit: {tmp_path}/list.csv is not a folder\n  fix: choose another --out"
    )


def test_a_photograph_that_changed_after_its_index_is_refused_and_the_older_audit_stays(photos, tmp_path):
    write_index(tmp_path / "index.parquet", index_images(photos, n_workers=0))
    run(photos, tmp_path / "audit", index=tmp_path / "index.parquet")
    before = {path.name: sha256(path.read_bytes()).digest() for path in (tmp_path / "audit").iterdir()}
    Image.new("RGB", (90, 90), "red").save(photos / "train/papule/papule-1.jpg")
    with pytest.raises(UserError) as caught:
        run(photos, tmp_path / "audit", index=tmp_path / "index.parquet")
    assert str(caught.value) == (
        "train/papule/papule-1.jpg is not the file that was indexed\n  fix: leave --index out, or make a new index"
    )
    assert {path.name: sha256(path.read_bytes()).digest() for path in (tmp_path / "audit").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".building")] == []


def test_a_source_without_a_usable_photograph_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"^nothing to audit in .*photos: none of its 1 files is usable$"):
        run(tmp_path / "photos", tmp_path / "audit")


def test_a_png_and_a_blank_photograph_are_looked_at_too(tmp_path):
    root = tmp_path / "photos" / "train" / "a"
    root.mkdir(parents=True)
    Image.new("RGBA", (80, 80), (200, 10, 10, 128)).save(root / "blank.png")
    grey = Image.radial_gradient("L").crop((60, 20, 256, 190))
    grey.save(root / "grey.png")
    grey.convert("RGB").resize((300, 200)).save(root / "colour.jpg")
    audit = run(tmp_path / "photos", tmp_path / "audit")
    assert audit.blank == [{"path": "train/a/blank.png", "reason": "shows nothing"}]
    assert audit.groups.n_links["near_copy"] == 1


def invoke(*words):
    app = typer.Typer()
    app.command()(audit_command)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_prints_figures_on_stdout_and_messages_on_stderr(photos, tmp_path):
    ended = invoke(photos, "--out", tmp_path / "audit", "--workers", "0")
    assert ended.exit_code == 0
    assert "surplus byte copies: 2 (train 1, test 1)\n" in ended.stdout
    assert "links: (byte_copy 2, near_copy 4, close_features 0)\n" in ended.stdout
    assert "not run: features: no --features FILE was given\n" in ended.stdout
    assert "looking at 28 photographs\n" in ended.stderr
    assert "looking at" not in ended.stdout


def test_the_command_prints_json_for_machines(tmp_path):
    (tmp_path / "list.csv").write_text("path\ntrain/a/1.jpg\ntest/a/2.jpg\n")
    ended = invoke(tmp_path / "list.csv", "--out", tmp_path / "audit", "--json")
    printed = json.loads(ended.stdout)
    assert printed["settings"]["feature_ratio"] == FEATURE_RATIO
    assert printed.pop("seconds").keys() == {"files", "writing"}
    assert printed == json.loads((tmp_path / "audit/audit.json").read_text(encoding="utf-8"))


def test_the_report_keeps_a_photographs_pixels_small(photos, tmp_path):
    import base64

    run(photos, tmp_path / "audit")
    page = _Page((tmp_path / "audit/audit.html").read_text(encoding="utf-8"))
    for address in page.addresses:
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
            assert max(picture.size) <= 224


def test_importing_the_command_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, builders.audit.cli; print([n for n in ('numpy', 'pyarrow', 'PIL', 'jinja2') if n in sys.modules])"
    )
    folder = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert ended.stdout == "[]\n"
