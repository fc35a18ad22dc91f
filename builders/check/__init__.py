"""CHECK: every contract of a dataset folder, each broken one told with its file, what stands there and what may."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from builders.check.counts import check_counts, check_split_counts
from builders.check.fault import Fault
from builders.check.files import check_files
from builders.check.findings import vocabulary_of
from builders.check.front_matter import check_front_matter
from builders.check.groups import check_alike, check_groups
from builders.check.photographs import photograph_check
from builders.check.provenance import check_provenance, read_provenance
from builders.check.rows import Tally, check_rows
from builders.check.shards import check_shards
from builders.dataset_folder import PROVENANCE, DescriptionSet
from builders.errors import UserError

__all__ = ["CheckCard", "CheckReport", "Fault", "check_dataset"]

CheckCard = Callable[[Path], tuple[list[Fault], list[str]]]


@dataclass(slots=True)
class CheckReport:
    """What was found in a dataset folder; `not_checked` says in sentences what could not be judged, and why."""

    dataset: Path
    n_sets: int = 0
    n_rows: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    not_checked: list[str] = field(default_factory=list[str])


def check_dataset(folder: Path, images: Path | None = None, check_card: CheckCard | None = None) -> CheckReport:
    """Check the dataset folder `folder`; nothing in it is changed, and at most one row group is in memory.

    `images` is a folder or zip of the photographs: those that were described must still be there, byte for byte.
    `check_card` compares what the dataset says about itself with its shards, as `dataset_card.check_card` does; it
    returns faults, and what it could not judge. Raises `UserError` where there is no dataset folder.
    """
    if not (folder / PROVENANCE).is_dir():
        raise UserError(
            f"{folder} is not a dataset folder: it holds no {PROVENANCE}/",
            "name the folder that `vl-dermnet build … --out` or a download made",
        )
    report = CheckReport(folder)
    report.faults += check_files(folder)
    sets, unusable = read_provenance(folder)
    report.n_sets = len(sets)
    report.faults += [*unusable, *check_provenance(sets)]
    tallies: dict[str, Tally] = {}
    for described in sets:
        _check_set(folder, described, images, tallies, report)
    if not sets or unusable:
        report.not_checked.append("README.md and the counts of all sets together: a provenance file cannot be used")
        return report
    report.faults += check_front_matter(folder)
    if len(tallies) < len(sets) or not all(tally.is_whole for tally in tallies.values()):
        report.not_checked.append("the card's numbers and the counts of all sets together: rows are damaged")
        return report
    report.faults += check_split_counts(sets, list(tallies.values()))
    if check_card is not None:
        faults, not_checked = check_card(folder)
        report.faults += faults
        report.not_checked += not_checked
    return report


def _check_set(
    folder: Path, described: DescriptionSet, images: Path | None, tallies: dict[str, Tally], report: CheckReport
) -> None:
    """Check one set, add to the report, and to `tallies` what the rules between sets need."""
    shards = check_shards(folder, described)
    report.faults += shards.faults
    if shards.features is None or not shards.readable:
        report.not_checked.append(f"the rows of {described.name}: its shards cannot be read")
        return
    vocabulary = vocabulary_of(described) if "findings" in shards.features else None
    if vocabulary is not None and vocabulary.json_schema is None:
        unknown = f"this version does not know the schema {vocabulary.name} with this hash"
        report.not_checked.append(f"the words of the findings of {described.name}: {unknown}")
    if images is None and described.is_primary and "image" not in shards.features:
        report.not_checked.append("whether the photographs are still those that were described: give --images ROOT")
    photographs = photograph_check(images, list(tallies.values()), len(shards.features["label"].names))
    tally, faults = check_rows(shards.readable, shards.features, vocabulary, photographs)
    tally.is_whole &= shards.is_whole
    report.faults += faults
    report.faults += check_groups(described.name, tally)
    report.faults += check_counts(folder, described, tally)
    for name, other in tallies.items():
        report.faults += check_alike(described.name, tally, name, other)
    tallies[described.name] = tally
    report.n_rows += tally.rows.total()
