"""A comparison as one self-contained page: the tables, and the most different pairs with their photographs."""

import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from builders.errors import UserError
from builders.files import write_atomic
from builders.foreign_text import content_policy, visible
from builders.join_images import some
from builders.loading import locate
from builders.thumbnail import Thumbnail
from dataset_card.compare.results import Comparison, Pair
from dataset_card.compare.tables import NOTE, tables_of
from dataset_card.compare.words import words_of
from dataset_card.gallery.sets import set_with_photographs
from dataset_card.gallery.thumbnails import Unshown, embedded_photographs, local_photographs, make_thumbnails

GENERATOR = '<meta name="generator" content="vl-dermnet compare">'
THUMBNAIL_PX = 384
_FOLDER = Path(__file__).parent
_STYLE = _FOLDER.parent / "gallery" / "page.css"
_PIECES = re.compile(r"\w+(?:['’]\w+)*|[^\w]+")


def check_page(out: Path, dataset: str) -> None:
    """Raise `UserError` unless `out` is a new page or an older comparison, outside of the dataset."""
    if out.suffix not in (".html", ".htm"):
        raise UserError(
            f"a comparison is a page, and '{out}' does not end in .html", f"--out '{out.with_suffix('.html')}'"
        )
    if out.exists():
        head = out.read_bytes()[:4096] if out.is_file() else b""
        if GENERATOR.encode() not in head:
            raise UserError(f"{out} is there and is no comparison; it was left as it is", "choose another --out")
    if Path(dataset).is_dir() and out.resolve().is_relative_to(Path(dataset).resolve()):
        raise UserError(
            f"{out} is inside the dataset {dataset}: `publish` would publish the photographs with it",
            f"--out '{out.name}'",
        )


def write_page(
    out: Path,
    found: Comparison,
    dataset: str,
    images: str | None = None,
    say: Callable[[str], object] = lambda _: None,
    revision: str | None = None,
) -> None:
    """Write the page. `images` is the photographs' source, a folder or zip file, where `dataset` does not hold them.

    `dataset` and `revision` are those that `found` was made of.
    """
    check_page(out, dataset)
    style = _STYLE.read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    pictures = _pictures(found, dataset, images, say, revision)
    page = environment.get_template("page.html.jinja").render(
        policy=content_policy([], [style]),
        style=style,
        a=found.a,
        b=found.b,
        models=[visible(side.model) for side in (found.a, found.b)],
        note=NOTE,
        tables=tables_of(found),
        pairs=[_shown(pair, pictures) for pair in found.different],
        names_cosine="cosine" in found.agreement,
    )
    write_atomic(out, lambda part: part.write_text(page, encoding="utf-8"))


def _shown(pair: Pair, pictures: dict[str, tuple[Thumbnail, str]]) -> dict[str, Any]:
    thumbnail, source = pictures.get(pair.image_sha256, (None, ""))
    return {
        "label": visible(pair.label) or "(no class)",
        "path": visible(pair.path),
        "image_id": pair.image_id,
        "split": pair.split,
        "likeness": f"{pair.likeness:.3f}",
        "thumbnail": thumbnail,
        "source": source,
        "texts": [
            {"pieces": pieces(pair.text_a, pair.text_b), "flags": ", ".join(map(visible, pair.flags_a))},
            {"pieces": pieces(pair.text_b, pair.text_a), "flags": ", ".join(map(visible, pair.flags_b))},
        ],
    }


def pieces(text: str, other: str) -> list[tuple[str, bool]]:
    """`text` cut into stretches, and whether a stretch is words that `other` does not hold."""
    shared = set(words_of(other))
    stretches: list[tuple[str, bool]] = []
    for piece in _PIECES.findall(text):
        is_word = piece[0].isalnum() or piece[0] == "_"
        is_own = is_word and piece.lower() not in shared
        if stretches and (stretches[-1][1] == is_own or (not is_word and piece.isspace() and not stretches[-1][1])):
            stretches[-1] = (stretches[-1][0] + piece, is_own)
        else:
            stretches.append((piece, is_own))
    return [(visible(stretch), is_own) for stretch, is_own in stretches]


def _pictures(
    found: Comparison, dataset: str, images: str | None, say: Callable[[str], object], revision: str | None
) -> dict[str, tuple[Thumbnail, str]]:
    """Thumbnails of the pairs' photographs and their `data:` addresses, by sha256, as far as they can be had."""
    thumbnails: dict[str, tuple[Thumbnail, str]] = {}
    unshown, pairs = Unshown(), found.different
    if images is not None:
        photographs = local_photographs(images, [(pair.path, pair.image_sha256) for pair in pairs], unshown)
    else:
        holder = set_with_photographs(dataset, locate(dataset, set_name=found.a.name, revision=revision))
        if holder is None:
            say("the page shows no photographs: the dataset holds none; with --images ROOT local ones are shown")
            return {}
        photographs = embedded_photographs(holder, [pair.image_sha256 for pair in pairs], unshown)

    def keep(sha256: str, thumbnail: Thumbnail) -> None:
        thumbnails[sha256] = (thumbnail, f"data:image/jpeg;base64,{b64encode(thumbnail.jpeg).decode()}")

    make_thumbnails(photographs, len(pairs), THUMBNAIL_PX, keep, unshown)
    absent = unshown.missing + unshown.changed
    if absent:
        where = images or dataset
        say(f"{len(absent)} of {len(pairs)} photographs are not in {where}, or have other bytes: {some(absent)}")
    return thumbnails
