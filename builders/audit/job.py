"""An audit from start to end: every part in order, then one folder with what was found."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from builders.audit import config as limits
from builders.audit.catalogue import SPLIT_ORDER, Catalogue, in_split_order, read_catalogue
from builders.audit.config import AuditConfig
from builders.audit.contents import balance, contents
from builders.audit.copies import byte_copies, surplus_rows
from builders.audit.curve import distance_curve
from builders.audit.features import read_features
from builders.audit.figures import figures_page
from builders.audit.findings import Audit, FeatureFacts
from builders.audit.groups import (
    GROUPS_FILE,
    LINKS_FILE,
    Link,
    byte_links,
    count_groups,
    feature_links,
    make_groups,
    picture_links,
    write_groups,
)
from builders.audit.known_groups import compare_groups, read_known
from builders.audit.marks import find_marks
from builders.audit.names import file_names
from builders.audit.near_copies import blank_pictures, near_copies
from builders.audit.neighbours import close_features
from builders.audit.report import write_report
from builders.audit.same_files import AUDIT_FILE, COMPARED, SPLITS_FILE
from builders.audit.thumbnails import thumbnails
from builders.audit.worst import worst_pairs
from builders.dermnet import compare_with_dermnet, files_per_class
from builders.errors import UserError
from builders.files import check_writable, write_atomic, write_json, write_table
from builders.join_images import some
from builders.schema import SCHEMA_VERSION, IndexRow
from builders.sources.kinds import is_on_hub
from builders.splits import Derived, derive_splits
from builders.swap import folder_being_built

REPORT_FILE = "audit.html"
FIGURES_FILE = "audit.md"
_WRITTEN = frozenset({AUDIT_FILE, FIGURES_FILE, REPORT_FILE, GROUPS_FILE, LINKS_FILE, SPLITS_FILE})
NO_PHOTOGRAPHS = "only a list of the files was given, not the photographs"
NO_FEATURES = "no --features FILE was given"
NO_CHECKSUMS = "the sha256 of some files is not known, so copies could not be kept apart"


def run_audit(config: AuditConfig, say: Callable[[str], None] = lambda _: None) -> tuple[Audit, dict[str, float]]:
    """Audit `config.images` and write the folder `config.out`; the findings, and seconds per part.

    The same files and settings give the same folder. An older audit in `out` stays whole until the new one is.
    Raises `UserError` where there is nothing to audit, and where `out` is not an audit's folder.
    """
    check_replaceable(config.out)
    clock = _Clock()
    catalogue = read_catalogue(config, say)
    rows = sorted(catalogue.ok_rows, key=in_split_order)
    if not rows:
        raise UserError(f"nothing to audit in {config.images}: none of its {len(catalogue.rows):,} files is usable")
    known = read_known(config.known, config.known_column, rows) if config.known else None
    surplus = {row.image_id for row in surplus_rows(catalogue)}
    distinct = [row for row in rows if row.image_id not in surplus]
    clock.lap("files")
    not_run: dict[str, str] = {}
    links = byte_links(rows)
    blank, marks, features = None, None, None
    if catalogue.images is None:
        not_run |= dict.fromkeys(("near_copies", "blank", "marks"), NO_PHOTOGRAPHS)
    else:
        say(f"looking at {len(distinct):,} photographs")
        pictures = thumbnails(catalogue.images, distinct, config.n_workers)
        is_blank = blank_pictures(pictures)
        blank = [
            {"path": row.path, "reason": "shows nothing"} for row, no in zip(distinct, is_blank, strict=True) if no
        ]
        clock.lap("thumbnails")
        links += picture_links(distinct, near_copies(pictures))
        clock.lap("near-copies")
        marks = find_marks(catalogue.images, distinct, config.seed, config.n_workers)
        clock.lap("marks")
    if config.features is None:
        not_run["features"] = NO_FEATURES
    else:
        say(f"comparing the features of {config.features}")
        features, close = _compare_features(config, distinct, rows)
        links += close
        clock.lap("features")
    members = make_groups(rows, links)
    known_groups = compare_groups(config.known_column, known, rows, members, links) if known else None
    derived, splits = None, None
    if catalogue.has_all_checksums:
        groups = {member.image_id: member.group for member in members}
        derived, splits = derive_splits(
            rows, seed=config.seed, validation_fraction=config.validation_fraction, groups=groups
        )
    else:
        not_run["splits"] = NO_CHECKSUMS
    audit = Audit(
        schema_version=SCHEMA_VERSION,
        settings=_settings(config, catalogue),
        not_run=not_run,
        contents=contents(catalogue),
        dermnet=compare_with_dermnet(files_per_class(catalogue.rows)),
        blank=blank,
        balance=balance(catalogue),
        byte_copies=byte_copies(catalogue),
        file_names=file_names(catalogue),
        features=features,
        groups=count_groups(rows, members, links),
        known_groups=known_groups,
        marks=marks,
        splits=splits,
    )
    with folder_being_built(config.out) as folder:
        write_json(folder / AUDIT_FILE, asdict(audit))
        write_groups(folder, members, links)
        if derived is not None:
            write_table(folder / SPLITS_FILE, _split_table(rows, derived))
        page = figures_page(audit)
        write_atomic(folder / FIGURES_FILE, lambda part: part.write_text(page, encoding="utf-8"))
        write_report(folder / REPORT_FILE, asdict(audit), worst_pairs(rows, links), catalogue.images)
    clock.lap("writing")
    return audit, clock.seconds


def check_replaceable(out: Path) -> None:
    """Raise `UserError` unless an audit can be written to `out`: absent, an empty folder, or an older audit.

    An older one is replaced whole, so it may hold nothing but what an audit writes.
    """
    check_writable(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / GROUPS_FILE).is_file())):
        raise UserError(
            f"{out} is there already and is not an audit's folder; nothing was overwritten", "--out another-folder"
        )
    foreign = sorted(path.name for path in out.iterdir() if path.name not in _WRITTEN) if out.exists() else []
    if foreign:
        raise UserError(
            f"{out} holds {len(foreign)} files that no audit wrote, and would lose them: {some(foreign)}",
            "move them away, or choose another --out",
        )


def _compare_features(
    config: AuditConfig, distinct: list[IndexRow], rows: list[IndexRow]
) -> tuple[FeatureFacts, list[Link]]:
    """Accuracy by distance to train of byte-unique files, and the links of those with close features."""
    features = read_features(config, distinct, rows)
    splits = [split for split in SPLIT_ORDER if split != "train"]
    curves = {split: distance_curve(features, split, config.seed) for split in splits}
    close = close_features(features.vectors, config.feature_ratio, config.seed)
    facts = FeatureFacts(
        encoders=list(features.encoders),
        file_sha256=features.file_sha256,
        n_files=len(features.rows),
        n_missing=features.n_missing,
        curves={split: curve for split, curve in curves.items() if curve is not None},
    )
    return facts, feature_links(features.rows, close)


def _settings(config: AuditConfig, catalogue: Catalogue) -> dict[str, Any]:
    """What decides the findings; paths by their last name only, because an audit is published."""
    return {
        "images": config.images if is_on_hub(config.images) else Path(config.images).name,
        "basis": "photographs" if catalogue.images is not None else "list" if catalogue.is_bare else "index",
        "features": None if config.features is None else config.features.name,
        "seed": config.seed,
        "validation_fraction": config.validation_fraction,
        "feature_ratio": config.feature_ratio,
        "known": None if config.known is None else config.known.name,
        "max_hamming": limits.MAX_HAMMING,
        "min_correlation": limits.MIN_CORRELATION,
        "tiny_side_px": limits.TINY_SIDE_PX,
        "tiny_bytes": limits.TINY_BYTES,
    }


def _split_table(rows: list[IndexRow], derived: dict[str, Derived]) -> pa.Table:
    """Every usable file and its derived columns, sorted by `image_id`: what `build` compares its photographs with."""
    names = ("image_id", "path", *COMPARED[1:])
    records = [{name: getattr(row, name) for name in names} | asdict(derived[row.image_id]) for row in rows]
    return pa.Table.from_pylist(sorted(records, key=lambda record: record["image_id"]))


class _Clock:
    """Seconds by part, from one `lap` to the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = perf_counter()

    def lap(self, name: str) -> None:
        """End the part `name`."""
        now = perf_counter()
        self.seconds[name] = round(now - self._start, 2)
        self._start = now
