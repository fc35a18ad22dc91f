"""Write a gallery: one page for a small dataset, a page and a folder beside it for a large one.

A page opened from a disk may not read other files with `fetch`, but it may load scripts and pictures. So the texts of a
large dataset are scripts of 250 rows each that hand their rows over, and every thumbnail is a file of its own: the page
asks for what it shows. All are named by their content, and the page, written last, names them: a reader sees the whole
old gallery or the whole new one, and a second call makes only what is new.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from builders.dataset_folder import DescriptionSet
from builders.errors import UserError
from builders.foreign_text import content_policy, script_json, visible
from builders.join_images import some
from dataset_card.gallery.rows import Rows, read_rows, row_facts, text_chunks
from dataset_card.gallery.sets import folder_of, model_of, open_sets, set_with_photographs
from dataset_card.gallery.stores import Beside, OnePage, Store
from dataset_card.gallery.thumbnails import (
    Photograph,
    Unshown,
    embedded_photographs,
    local_photographs,
    make_thumbnails,
)

GENERATOR = '<meta name="generator" content="vl-dermnet gallery">'
_FOLDER = Path(__file__).parent
_SCRIPTS = ("review.js", "rows.js", "cards.js", "keys.js", "page.js")
_ROWS_PER_CHUNK = 250  # some 300 kB of text: read in a few milliseconds, and 80 of them are 20,000 rows
Track = Callable[[Iterable[Photograph], int, str], Iterable[Photograph]]


class GalleryConfig(BaseModel):
    """Which dataset is shown where.

    `dataset` is a folder or a Hub repository's id, `set_names` the sets shown side by side (all of them if empty),
    `images` the photographs' source (a folder, zip file, …), where the dataset does not hold them. Up to
    `one_page_rows` rows everything stands in the page itself. `thumbnail_px` is a thumbnail's longer side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    out: Path
    images: str | None = None
    set_names: tuple[str, ...] = ()
    revision: str | None = None
    thumbnail_px: int = Field(default=384, ge=16, le=4096)
    one_page_rows: int = Field(default=500, ge=0)


@dataclass(frozen=True, slots=True)
class GallerySummary:
    """What was written. The photographs without a picture are counted by why: `missing` here, `changed`, `refused`."""

    out: Path
    is_one_page: bool
    sets: tuple[str, ...]
    n_photographs: int
    n_pictures: int
    n_missing: int
    n_changed: int
    n_refused: int
    n_bytes: int


def write_gallery(
    config: GalleryConfig,
    track: Track = lambda items, total, what: items,
    say: Callable[[str], object] = lambda _: None,
) -> GallerySummary:
    """Write `config.out`, and `<its stem>_files` beside it where the dataset is large.

    `track(photographs, total, what)` may wrap the photographs to show progress; `say` is told what cannot be shown.
    Raises `UserError` on an unknown dataset or set, on an `out` that is not ours or inside the dataset, and where
    `images` holds none of the photographs.
    """
    _check_out(config)
    sets = open_sets(config.dataset, list(config.set_names) or None, config.revision)
    rows = read_rows(sets)
    is_one_page = len(rows) <= config.one_page_rows
    store: Store = (OnePage if is_one_page else Beside)(config.out, config.thumbnail_px)
    unshown = Unshown()
    _keep_thumbnails(config, sets, rows, store, unshown, track)
    _tell(unshown, config, rows, store, say)
    about = {
        "rows_per_chunk": _ROWS_PER_CHUNK,
        "thumbnail_px": config.thumbnail_px,
        "folder": store.folder_name,
        "sets": [_about_set(each) for each in sets],
        "n_rows": len(rows),
        "rows": store.keep("rows", row_facts(rows, store.thumbnails)),
        "texts": [
            [store.keep(f"texts-{number}", chunk) for chunk in text_chunks(rows.described[each.name], _ROWS_PER_CHUNK)]
            for number, each in enumerate(sets)
        ],
    }
    page = _render(config, about, store.inline())
    store.finish(page)
    return GallerySummary(
        out=config.out,
        is_one_page=is_one_page,
        sets=tuple(each.name for each in sets),
        n_photographs=len(rows),
        n_pictures=sum(sha256 in store.thumbnails for sha256 in rows.photographs["image_sha256"].to_pylist()),
        n_missing=len(unshown.missing),
        n_changed=len(unshown.changed),
        n_refused=len(unshown.refused),
        n_bytes=store.n_bytes(),
    )


def _check_out(config: GalleryConfig) -> None:
    """Raise `UserError` unless `out` is a new page or an older gallery, outside of the dataset."""
    out = config.out
    if out.suffix not in (".html", ".htm"):
        raise UserError(
            f"a gallery is a page, and '{out}' does not end in .html", f"--out '{out.with_suffix('.html')}'"
        )
    if out.exists():
        head = out.read_bytes()[:4096] if out.is_file() else b""
        if GENERATOR.encode() not in head:
            raise UserError(f"{out} is there and is no gallery; it was left as it is", "choose another --out")
    if Path(config.dataset).is_dir() and out.resolve().is_relative_to(Path(config.dataset).resolve()):
        raise UserError(
            f"{out} is inside the dataset {config.dataset}: `publish` would publish the photographs with it",
            f"--out '{out.name}'",
        )


def _keep_thumbnails(
    config: GalleryConfig, sets: list[DescriptionSet], rows: Rows, store: Store, unshown: Unshown, track: Track
) -> None:
    """Have `store` keep a thumbnail of every photograph that can be had; those it holds already are not made again."""
    paths, digests = (rows.photographs[name].to_pylist() for name in ("path", "image_sha256"))
    left = [(path, sha256) for path, sha256 in zip(paths, digests, strict=True) if not store.holds_thumbnail(sha256)]
    if config.images is not None:
        embedding = next((each for each in sets if each.build.get("with_images")), None)
        if embedding is not None:
            raise UserError(f"the set '{embedding.name}' holds its photographs already", "leave out --images")
        photographs = local_photographs(config.images, left, unshown)
    else:
        holder = set_with_photographs(config.dataset, folder_of(sets[0]))  # maybe none of those that are shown
        if holder is None:
            return
        photographs = embedded_photographs(holder, [sha256 for _, sha256 in left], unshown)
    n_photographs = len({sha256 for _, sha256 in left})
    tracked: Iterable[Photograph] = track(photographs, n_photographs, "thumbnails")
    make_thumbnails(tracked, n_photographs, config.thumbnail_px, store.keep_thumbnail, unshown)


def _tell(unshown: Unshown, config: GalleryConfig, rows: Rows, store: Store, say: Callable[[str], object]) -> None:
    """Say which photographs have no picture; raise `UserError` where local ones were promised and none is there."""
    if config.images is not None and not store.thumbnails:
        raise UserError(
            f"none of the {len(rows)} photographs of {config.dataset} is in {config.images}, by path and sha256",
            "point --images to what was indexed, or leave it out for a gallery of texts",
        )
    if not store.thumbnails:
        say("the dataset holds no photographs: a gallery of texts; with --images ROOT local ones are shown")
    if unshown.missing:
        say(f"{len(unshown.missing)} of {len(rows)} photographs are not in {config.images}: {some(unshown.missing)}")
    if unshown.changed:
        where = config.images or config.dataset
        say(f"{len(unshown.changed)} of {len(rows)} photographs in {where} have other bytes: {some(unshown.changed)}")
    for sha256, reason in sorted(unshown.refused.items())[:5]:
        say(f"the photograph with sha256 {sha256[:16]}… has no thumbnail: {reason}")


def _about_set(described: DescriptionSet) -> dict[str, str]:
    return {
        "name": described.name,
        "model": visible(model_of(described)),
        "fingerprint": visible(described.run.get("fingerprint", ""))[:16],
    }


def _render(config: GalleryConfig, about: dict[str, Any], inline: dict[str, Any]) -> str:
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n{{\n{script}}}\n'  # a block: none of its names is global
    is_local = Path(config.dataset).is_dir()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        title=visible(Path(config.dataset).resolve().name if is_local else config.dataset),
        policy=content_policy([script], [style]),
        style=style,
        script=script,
        about=script_json(about),
        inline=[(name, script_json(value)) for name, value in inline.items()],
    )
