"""Refuse runs that do not fit: unfinished, without some descriptions, with foreign ones, or of other photographs."""

from builders.dataset_folder import check_set_name
from builders.errors import UserError
from builders.join_images import some
from builders.run_folder import Run
from builders.schema import Description, IndexRow


def check_runs(runs: list[Run], allow_partial: bool) -> None:
    """Raise `UserError` unless every run is whole and all are of the same photographs.

    With `allow_partial` a run may be unfinished and lack descriptions; nothing else is let through.
    """
    names: dict[str, Run] = {}
    for run in runs:
        name = set_name(run)
        check_set_name(name)
        if name in names:
            raise UserError(
                f"{names[name].path} and {run.path} are both called '{name}'; each description set needs its own name",
                f"leave one out, or name one: --run {name}-2='{run.path}'",
            )
        names[name] = run
        _check_rows(run, allow_partial)
    merge_indexes(runs)


def set_name(run: Run) -> str:
    """The name of the description set that a run makes."""
    return str(run.run["set_name"])


def _check_rows(run: Run, allow_partial: bool) -> None:
    known = {row.image_id: row for row in run.index}
    extra = sorted(image_id for image_id in run.descriptions if image_id not in known)
    n_withdrawn = (run.summary or {}).get("n_withdrawn", 0)  # images that annotate itself saw leave the source
    is_unfinished = allow_partial and run.summary is None  # annotate has not counted them yet
    if len(extra) > n_withdrawn and not is_unfinished:
        raise UserError(
            f"{len(extra)} descriptions in {run.path} are of images that its index does not hold: {some(extra)}",
            "the folder mixes two runs; annotate into an empty one",
        )
    if not allow_partial:
        _check_whole(run)
    foreign = [
        known[each.image_id]
        for each in run.descriptions.values()
        if each.image_id in known and each.image_sha256 != known[each.image_id].image_sha256
    ]
    if foreign:
        raise UserError(
            f"{len(foreign)} descriptions in {run.path} are of other bytes than its index holds: "
            f"{some([_name(row) for row in foreign])}",
            f"{_resume(run)}   (describes changed photographs again)",
        )


def _check_whole(run: Run) -> None:
    missing = [row for row in run.index if row.status == "ok" and row.image_id not in run.descriptions]
    fix = f"{_resume(run)}   (continues where it stopped; or build with --allow-partial)"
    if missing:
        raise UserError(
            f"{len(missing)} of {_n_ok(run)} images have no description in {run.path} yet: "
            f"{some([_name(row) for row in missing])}",
            fix,
        )
    if run.summary is None:
        raise UserError(f"{run.path} is not finished: it holds no summary.json", fix)


def _n_ok(run: Run) -> int:
    return sum(1 for row in run.index if row.status == "ok")


def _name(row: IndexRow) -> str:
    return f"{row.image_id} ({row.path})"


def _resume(run: Run) -> str:
    return str(run.run.get("command") or f"vl-dermnet annotate IMAGES --out '{run.path}'")


def merge_indexes(runs: list[Run]) -> list[IndexRow]:
    """The index rows of all runs, once each, sorted by `image_id`. Raises `UserError` where two runs contradict.

    Runs may cover different files of a collection, and one may have failed to read what another could: each
    description set keeps its own rows.
    """
    merged: dict[str, tuple[IndexRow, Run]] = {}
    for run in runs:
        for row in run.index:
            known, origin = merged.get(row.image_id, (row, run))
            if known.status == row.status == "ok" and _identity(known) != _identity(row):
                raise UserError(
                    f"{origin.path} and {run.path} disagree about {_name(row)}: its bytes, its split or its label",
                    "annotate both from the same photographs; two versions of a collection make two datasets",
                )
            if row.image_id not in merged or known.status != "ok":
                merged[row.image_id] = (row, run)
    return [merged[image_id][0] for image_id in sorted(merged)]


def _identity(row: IndexRow) -> tuple[str, str, str, str]:
    return row.path, row.image_sha256, row.split, row.label


def described(run: Run) -> list[tuple[IndexRow, Description]]:
    """The rows that become dataset rows: index and description both `ok`; sorted by `image_id`."""
    pairs = ((row, run.descriptions.get(row.image_id)) for row in run.index if row.status == "ok")
    whole = [(row, each) for row, each in pairs if each is not None and each.status == "ok"]
    return sorted(whole, key=lambda pair: pair[0].image_id)


def not_described(run: Run) -> list[dict[str, str]]:
    """Every other index row with what became of it, sorted by path: nothing disappears silently."""
    rows: list[dict[str, str]] = []
    for row in sorted(run.index, key=lambda row: row.path):
        description = run.descriptions.get(row.image_id)
        if row.status == "refused":
            status, reason = "refused", row.reason
        elif description is None:
            status, reason = "missing", "the run did not get to it"
        elif description.status != "ok":
            status, reason = description.status, description.reason
        else:
            continue
        rows.append(
            {
                "image_id": row.image_id,
                "path": row.path,
                "split": row.split,
                "label": row.label,
                "status": status,
                "reason": reason,
            }
        )
    return rows
