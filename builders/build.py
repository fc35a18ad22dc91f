"""From photographs and runs to a dataset folder: whole-old or whole-new, and the same bytes for the same inputs."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field

from builders.check_images import check_images, refuse_unmatched
from builders.check_runs import check_runs, merge_indexes, set_name
from builders.columns import Row
from builders.dataset_folder import (
    AUDIT,
    PROVENANCE,
    SPLITS,
    check_replaceable,
    write_checksums,
    write_front_matter,
)
from builders.dermnet import compare_with_dermnet
from builders.errors import UserError, choose
from builders.features import dataset_features
from builders.files import write_atomic, write_json
from builders.review import Mark, Reviews, check_set_names, marks_of, read_review
from builders.schema import SCHEMA_VERSION
from builders.scratch import Scratch, scratch
from builders.shards import write_shards
from builders.sources import open_source
from builders.splits import SplitCounts, derive_into, put_groups, start_photographs
from builders.stored_run import (
    StoredRun,
    described,
    descriptions_of,
    n_described,
    not_described,
    start_runs,
    store_run,
)
from builders.swap import folder_being_built


class BuildConfig(BaseModel):
    """What `build` makes, of what.

    `runs` are run folders, one description set each, called as the run says or as `names` does, by its path;
    `primary` is the set that `load_dataset` opens by default, the first run's if None. `with_images` puts the
    photographs themselves into that set: only for those who hold the rights. `allow_partial` lets unfinished runs
    through. `shard_bytes` is uncompressed, images included. `audit` is a folder of `vl-dermnet audit`: its groups of
    near-copies decide the splits, and its figures go into the dataset. `review` is a CSV of marks that a gallery
    exported: they become the columns `review` and `review_note` of the sets that it is of. `limit` takes so many of
    the photographs, those of least `image_id`: spread over all folders, and the same ones whenever it is asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Path
    runs: tuple[Path, ...] = Field(min_length=1)
    names: dict[Path, str] = Field(default_factory=dict[Path, str])
    out: Path
    primary: str | None = None
    audit: Path | None = None
    review: Path | None = None
    limit: int | None = Field(default=None, ge=1)
    with_images: bool = False
    allow_partial: bool = False
    seed: int = 0
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    shard_bytes: int = Field(default=500_000_000, ge=1)


@dataclass(frozen=True, slots=True)
class SetSummary:
    """Rows of one description set: in the dataset by split, and left out by status (`refused`, `failed`, `missing`).

    `n_reviewed` of them carry a reviewer's mark. `rows_sha256` is over the features and every row, a photograph
    standing for itself by its own sha256.
    """

    rows_sha256: str
    n_rows: int
    n_per_split: dict[str, int]
    n_left_out: dict[str, int]
    n_reviewed: int
    n_shards: int


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What `build` made. `n_extra_images` counts image files that no run has indexed; `sets` has the primary first.

    `dermnet` compares what the runs indexed with Kaggle's DermNet, in lines to show; none where it is another set.
    """

    out: Path
    primary: str
    sets: dict[str, SetSummary]
    splits: SplitCounts
    n_bytes: int
    n_extra_images: int
    dermnet: list[str]


def named_run(text: str) -> tuple[Path, str | None]:
    """`NAME=RUN` as the run's folder and what to call its set; any other text, or a folder so called, is a folder."""
    name, equals, path = text.partition("=")
    try:
        is_there = Path(text).exists()
    except OSError:  # longer than any file's name
        is_there = False
    return (Path(path), name) if equals and name and path and not is_there else (Path(text), None)


def build(
    config: BuildConfig,
    finish: Callable[[Path], object] = lambda _: None,
    groups: dict[str, str] | None = None,
) -> BuildSummary:
    """Build the dataset folder `config.out` of the photographs and the runs.

    `groups` maps `image_id` -> what a photograph is of, where that is known (a lesion, a patient): it decides the
    splits, in place of an audit's groups.
    `finish` is called with the complete folder before it takes its place, to write what the dataset says about
    itself (the card) beside the shards, whose checksums are there already; those of all else are taken after it. An
    older build in `out` stays whole until that moment.
    Rows wait on disk: memory does not grow with them.
    Raises `UserError` on runs that do not fit, on photographs that are gone or changed, and on an `out` not ours.
    """
    check_replaceable(config.out)
    with scratch() as store:
        start_runs(store)
        runs = [
            _called(store_run(store, number, path), config.names.get(path)) for number, path in enumerate(config.runs)
        ]
        check_runs(store, runs, config.allow_partial)
        primary = config.primary or set_name(runs[0])
        choose("primary description set", primary, [set_name(run) for run in runs])
        reviews = read_review(config.review) if config.review else {}
        check_set_names(reviews, [set_name(run) for run in runs])
        start_photographs(store)
        merge_indexes(store, runs)
        dermnet = compare_with_dermnet(
            {
                (label, split): n
                for label, split, n in store.rows("SELECT label, split, COUNT(*) FROM photograph GROUP BY 1, 2")
            }
        )
        if config.limit is not None:
            _take(store, config.limit)
        embedded = [run.number for run in runs if config.with_images and set_name(run) == primary]
        n_extra = check_images(store, config.images, embedded)
        if groups is None and config.audit:
            groups = _groups(config.audit, store, config)
        put_groups(store, groups or {})
        counts = derive_into(store, config.seed, config.validation_fraction)
        label_names = store.column("SELECT DISTINCT label FROM photograph WHERE chosen AND label <> '' ORDER BY 1")
        with folder_being_built(config.out) as folder:
            sets: dict[str, SetSummary] = {}
            checksums: dict[str, str] = {}
            for run in sorted(runs, key=lambda run: (set_name(run) != primary, set_name(run))):
                name = set_name(run)
                images = config.images if config.with_images and name == primary else None
                sets[name], shards = _write_set(folder, store, run, label_names, images, reviews, config)
                checksums |= {shard.relative_to(folder).as_posix(): sha256 for shard, sha256 in shards.items()}
                _write_provenance(folder, run, name == primary, sets[name], counts, config)
            if config.audit:
                _copy_audit(config.audit, folder / AUDIT)
            write_front_matter(folder)
            write_checksums(folder, checksums)  # the card states them
            finish(folder)
            write_checksums(folder, checksums)
            n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return BuildSummary(config.out, primary, sets, counts, n_bytes, n_extra, dermnet)


def _groups(audit: Path, store: Scratch, config: BuildConfig) -> dict[str, str]:
    from builders.audit.groups import read_groups  # NumPy and the audit's own modules: only where there is one
    from builders.audit.same_files import check_audit_is_of

    groups = read_groups(audit)
    check_audit_is_of(audit, store, config.seed, config.validation_fraction)
    return groups


def _called(run: StoredRun, name: str | None) -> StoredRun:
    """The run under another name for its description set; the run's own one stays beside it."""
    if name is None or name == set_name(run):
        return run
    return replace(run, run=run.run | {"set_name": name, "set_name_of_run": set_name(run)})


def _take(store: Scratch, limit: int) -> None:
    """Leave so many photographs chosen, those of least `image_id`, which is a hash; forget the other files."""
    store.do(
        "UPDATE photograph SET chosen = 0 WHERE chosen AND image_id NOT IN"
        " (SELECT image_id FROM photograph WHERE chosen ORDER BY image_id LIMIT ?)",
        limit,
    )
    store.do("DELETE FROM file WHERE image_id NOT IN (SELECT image_id FROM photograph WHERE chosen)")
    store.do("DELETE FROM counted WHERE image_id NOT IN (SELECT image_id FROM photograph WHERE chosen)")


def _copy_audit(audit: Path, folder: Path) -> None:
    """The audit's figures and tables; its page stays behind, because it shows photographs."""
    folder.mkdir()
    for file in (audit / "audit.json", *sorted(audit.glob("*.parquet"))):
        write_atomic(folder / file.name, lambda part, file=file: part.write_bytes(file.read_bytes()))


def _write_set(
    folder: Path,
    store: Scratch,
    run: StoredRun,
    label_names: list[str],
    images: Path | None,
    reviews: Reviews,
    config: BuildConfig,
) -> tuple[SetSummary, dict[Path, str]]:
    """Write the shards of one description set, and a list of the rows it lacks; the shards have their sha256."""
    name = set_name(run)
    marks = marks_of(reviews, name, descriptions_of(store, run, set(reviews.get(name, ()))))
    n_per_split = n_described(store, run)
    n_rows = sum(n_per_split.values())
    if not n_rows:
        n_files = store.value("SELECT COUNT(*) FROM file WHERE run = ?", run.number)
        raise UserError(f"{run.path} holds no usable description: {n_files} images indexed, none described")
    (folder / name).mkdir()
    features = dataset_features(
        label_names, images is not None, with_findings=bool(run.run.get("schema")), with_review=bool(marks)
    )
    label_numbers = {label: number for number, label in enumerate(label_names)}
    digest = hashlib.sha256(json.dumps(features, sort_keys=True).encode())
    shards: dict[Path, str] = {}
    missing: list[str] = []
    changed: list[str] = []
    for split in SPLITS:
        rows = (
            _row(row, label_numbers, "findings" in features)
            | ({} if not marks else _mark_columns(marks.get(row["image_id"])))
            for row in described(store, run, split)
        )
        rows = _digested(rows, digest.update)
        if images is not None:
            rows = _with_images(rows, images, missing, changed)
        shards |= write_shards(folder / name, split, rows, features, config.shard_bytes)
    if images is not None:
        refuse_unmatched(images, n_rows, sorted(missing), sorted(changed))
    summary = SetSummary(
        rows_sha256=digest.hexdigest(),
        n_rows=n_rows,
        n_per_split=n_per_split,
        n_left_out=_write_left_out(folder / PROVENANCE / f"{name}.not-described.csv", not_described(store, run)),
        n_reviewed=len(marks),
        n_shards=len(shards),
    )
    return summary, shards


def _row(row: Row, label_numbers: dict[str, int], with_findings: bool) -> Row:
    """`row` with its label as a number, None where the source has no label; findings only where they were asked for."""
    numbered = row | {"label": label_numbers.get(row["label"])}
    if not with_findings:
        del numbered["findings"]
    return numbered


def _mark_columns(mark: Mark | None) -> Row:
    return {"review": mark.review if mark else "", "review_note": mark.review_note if mark else ""}


def _digested(rows: Iterator[Row], update: Callable[[bytes], object]) -> Iterator[Row]:
    """The same rows, each given to `update` as it passes."""
    encode = json.JSONEncoder(sort_keys=True).encode
    for row in rows:
        update(encode(row).encode())
        yield row


def _with_images(rows: Iterator[Row], images: Path, missing: list[str], changed: list[str]) -> Iterator[Row]:
    """Rows with their photographs' original bytes, read one by one.

    A row whose photograph cannot be read, or has other bytes, is left out and added to `missing` or `changed`.
    """
    with open_source(images) as source:
        for row in rows:
            try:
                photograph = source.read(row["path"])
            except OSError:
                missing.append(row["path"])
                continue
            if hashlib.sha256(photograph).hexdigest() == row["image_sha256"]:
                yield {"image": {"bytes": photograph, "path": row["path"]}, **row}
            else:
                changed.append(row["path"])


def _write_left_out(path: Path, rows: Iterator[dict[str, str]]) -> dict[str, int]:
    """Write a CSV of the rows, if there are any, and count them by status."""
    first = next(rows, None)
    if first is None:
        return {}
    n_left_out: Counter[str] = Counter()

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            # `csv` quotes what its line ends are made of: a lone \r in a name too, which readers take for one
            writer = csv.DictWriter(_UnixLines(file), fieldnames=list(first), lineterminator="\r\n")
            writer.writeheader()
            for row in chain([first], rows):
                n_left_out[row["status"]] += 1
                writer.writerow(row)

    write_atomic(path, write)
    return dict(sorted(n_left_out.items()))


class _UnixLines:
    """A text file for `csv` to write, whose lines end in \\n alone."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        """Write one line."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _write_provenance(
    folder: Path, run: StoredRun, is_primary: bool, summary: SetSummary, counts: SplitCounts, config: BuildConfig
) -> None:
    """Write `provenance/<set>.json`: where every row of a set comes from, and what became of the others."""
    facts: dict[str, Any] = {
        "set_name": set_name(run),
        "is_primary": is_primary,
        "build": {
            "schema_version": SCHEMA_VERSION,
            "with_images": config.with_images and is_primary,
            "seed": config.seed,
            "validation_fraction": config.validation_fraction,
            "limit": config.limit,
            "allow_partial": config.allow_partial,
            "n_reviewed": summary.n_reviewed,
            "rows_sha256": summary.rows_sha256,
            "rows": {
                "n_rows": summary.n_rows,
                "n_per_split": summary.n_per_split,
                "n_left_out": summary.n_left_out,
            },
            "splits": asdict(counts),
        },
        "run": run.run,
        "summary": run.summary,
    }
    write_json(folder / PROVENANCE / f"{set_name(run)}.json", facts)
