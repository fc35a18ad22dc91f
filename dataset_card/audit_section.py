"""The audit's findings in numbers: a sentence for each key that audit/audit.json has, and none for what it lacks."""

from collections.abc import Iterator
from typing import Any

from builders import markdown

# Key in audit.json -> what its number says. `*` stands for any key there, which is put in place of {}.
# Shares are shown in per cent. A part that was not run is null in the file, and has no row.
FINDINGS: dict[str, str] = {
    "contents.n_files": "files",
    "contents.n_refused": "files that cannot be decoded",
    "contents.n_tiny": "tiny files",
    "balance.*.smallest": "files of the smallest class, {}",
    "balance.*.largest": "files of the largest class, {}",
    "balance.*.ratio": "times that the largest class is larger than the smallest, {}",
    "byte_copies.n_surplus": "files that repeat another to the byte",
    "byte_copies.n_surplus_per_split.*": "of these in {}",
    "byte_copies.n_groups_across_splits": "photographs whose byte copies stand in several splits",
    "byte_copies.n_conflicts": "photographs whose byte copies carry different labels",
    "groups.n_groups": "groups of copies and near-copies",
    "groups.n_files": "files in these groups",
    "groups.largest": "files in the largest group",
    "groups.n_across_splits": "groups in several splits",
    "groups.n_conflicts": "groups under several labels",
    "groups.n_test_beside_train": "files outside train that have a copy or near-copy in it",
    "groups.n_links.*": "links by {}",
    "known_groups.n_groups": "groups that the source knows",
    "known_groups.n_groups_across_splits": "of these in several splits",
    "known_groups.precision": "pairs of one group found that are of one known group, %",
    "known_groups.recall": "pairs of one known group that are of one group found, %",
    "file_names.n_in_several_labels": "file names under several labels",
    "file_names.lookup.*.accuracy": "labels that the file name alone gives away, {}, %",
    "file_names.lookup.*.majority_accuracy": "labels that the largest class alone would give, {}, %",
    "file_names.copies.*.n_same_label": "byte copies with the same name and label in train, {}",
    "file_names.copies.*.n_other_label_only": "byte copies whose name is in train under other labels only, {}",
    "features.n_files": "files with features",
    "features.curves.*.accuracy": "labels that the nearest training photograph gives, {}, %",
    "features.curves.*.quintiles": "the same by distance to train, fifth by fifth from near to far, {}, %",
    "marks.marks": "watermark candidates",
    "splits.n_clean.*": "rows of split_clean, {}",
}


def audit_table(audit: dict[str, Any]) -> str:
    """A table of what an audit found, in the order of `FINDINGS`; "" where it found nothing that is known here."""
    rows = [row for key, words in FINDINGS.items() for row in findings(audit, key, words)]
    return markdown.table(["Finding", "Number"], rows) if rows else ""


def audit_notes(audit: dict[str, Any]) -> list[str]:
    """What the numbers rest on, and which parts were not run and why, in Markdown."""
    basis = _part(audit, "byte_copies", dict).get("basis")
    notes = [f"Byte copies are told by {markdown.plain(basis)}."] if basis else []
    notes += [f"{markdown.plain(str(line).strip())}." for line in _part(audit, "dermnet", list)]
    not_run = _part(audit, "not_run", dict)
    return notes + [f"Not run: {markdown.plain(part)}, because {markdown.plain(why)}." for part, why in not_run.items()]


def _part(audit: Any, key: str, kind: type[Any]) -> Any:
    """A part of an audit that has the form it should have; an empty one where a stranger's file says otherwise."""
    value = audit.get(key) if isinstance(audit, dict) else None
    return value if isinstance(value, kind) else kind()


def findings(audit: Any, key: str, words: str) -> Iterator[list[object]]:
    """The rows of one key: none where it is missing or null, several where it holds a `*`."""
    part, _, rest = key.partition(".")
    if not isinstance(audit, dict):
        return
    for name in list(audit) if part == "*" else [part]:
        value = audit.get(name)
        told = words.format(name.replace("_", " ")) if part == "*" else words
        if rest:
            yield from findings(value, rest, told)
        elif value is not None:
            yield [told, _number(value, is_share=told.endswith("%"))]


def _number(value: Any, is_share: bool) -> object:
    """A count, a share as per cent, a curve's accuracies, or how many entries a listing has."""
    if isinstance(value, list):
        accuracies = [each["accuracy"] for each in value if isinstance(each, dict) and "accuracy" in each]
        return " / ".join(f"{100 * each:.1f}" for each in accuracies) if accuracies else len(value)
    return f"{100 * value:.2f}" if is_share else value
