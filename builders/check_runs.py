"""Refuse runs that do not fit: unfinished, without some descriptions, with foreign ones, or of other photographs."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from builders.dataset_folder import check_set_name
from builders.errors import UserError
from builders.join_images import some
from builders.scratch import Scratch
from builders.stored_run import StoredRun


def check_runs(store: Scratch, runs: list[StoredRun], allow_partial: bool) -> None:
    """Raise `UserError` unless every run is whole and has a name of its own.

    With `allow_partial` a run may be unfinished and lack descriptions; nothing else is let through.
    """
    names: dict[str, StoredRun] = {}
    for run in runs:
        if any(run.path == other.path for other in names.values()):
            raise UserError(f"the run {run.path} is given twice", "leave one --run out")
        name = set_name(run)
        check_set_name(name)
        if name in names:
            raise UserError(
                f"{names[name].path} and {run.path} are both called '{name}'; each description set needs its own name",
                f"leave one out, or name one: --run {name}-2='{run.path}'",
            )
        names[name] = run
        _check_rows(store, run, allow_partial)


def set_name(run: StoredRun) -> str:
    """The name of the description set that a run makes."""
    return str(run.run["set_name"])


def _check_rows(store: Scratch, run: StoredRun, allow_partial: bool) -> None:
    extra = store.column(
        "SELECT image_id FROM counted LEFT JOIN file USING (image_id, run) WHERE counted.run = ? AND path IS NULL"
        " ORDER BY image_id",
        run.number,
    )
    n_withdrawn = (run.summary or {}).get("n_withdrawn", 0)  # images that annotate itself saw leave the source
    is_unfinished = allow_partial and run.summary is None  # annotate has not counted them yet
    if len(extra) > n_withdrawn and not is_unfinished:
        raise UserError(
            f"{len(extra)} descriptions in {run.path} are of images that its index does not hold: {some(extra)}",
            "the folder mixes two runs; annotate into an empty one",
        )
    if not allow_partial:
        _check_whole(store, run)
    foreign = store.column(
        "SELECT image_id || ' (' || path || ')' FROM counted JOIN file USING (image_id, run) WHERE counted.run = ?"
        " AND counted.image_sha256 <> file.image_sha256 ORDER BY path",
        run.number,
    )
    if foreign:
        raise UserError(
            f"{len(foreign)} descriptions in {run.path} are of other bytes than its index holds: {some(foreign)}",
            f"{_resume(run)}   (describes changed photographs again)",
        )


def _check_whole(store: Scratch, run: StoredRun) -> None:
    missing = store.column(
        "SELECT image_id || ' (' || path || ')' FROM file LEFT JOIN counted USING (image_id, run)"
        " WHERE file.run = ? AND file.status = 'ok' AND counted.status IS NULL ORDER BY path",
        run.number,
    )
    fix = f"{_resume(run)}   (continues where it stopped; or build with --allow-partial)"
    if missing:
        n_ok = store.value("SELECT COUNT(*) FROM file WHERE run = ? AND status = 'ok'", run.number)
        raise UserError(f"{len(missing)} of {n_ok} images have no description in {run.path} yet: {some(missing)}", fix)
    if run.summary is None:
        raise UserError(f"{run.path} is not finished: it holds no summary.json", fix)


def _resume(run: StoredRun) -> str:
    return str(run.run.get("command") or f"vl-dermnet annotate IMAGES --out '{run.path}'")


def merge_indexes(store: Scratch, runs: list[StoredRun]) -> None:
    """Put the files of all runs, once each, into the table of photographs; those that some run could read are chosen.

    Runs may cover different files of a collection, and one may have failed to read what another could: each
    description set keeps its own rows. Raises `UserError` where two runs contradict.
    """
    paths = {run.number: run.path for run in runs}
    rows = store.rows("SELECT image_id, image_sha256, path, split, label, status, run FROM file ORDER BY image_id, run")
    store.put("photograph", _merged(rows, paths), 6)


def _merged(rows: Iterator[tuple[Any, ...]], paths: dict[int, Path]) -> Iterator[tuple[Any, ...]]:
    for image_id, of_image in groupby(rows, key=itemgetter(0)):
        kept, *others = of_image
        for row in others:
            if kept[5] == row[5] == "ok" and kept[1:5] != row[1:5]:
                raise UserError(
                    f"{paths[kept[6]]} and {paths[row[6]]} disagree about {image_id} ({row[2]}): its bytes, its split"
                    " or its label",
                    "annotate both from the same photographs; two versions of a collection make two datasets",
                )
            if kept[5] != "ok":
                kept = row
        yield *kept[:5], kept[5] == "ok"
