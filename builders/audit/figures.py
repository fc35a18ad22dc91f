"""The figures that a person asks for first, one per line: for a terminal, and for a page without photographs."""

from builders import markdown
from builders.audit.findings import Audit
from builders.audit.known_groups import KnownGroups


def figures(audit: Audit) -> list[str]:
    """The lines."""
    lines = [
        f"files: {audit.contents.n_files:,}, refused {audit.contents.n_refused:,}",
        *audit.dermnet,
        f"surplus byte copies: {audit.byte_copies.n_surplus:,} {_counts(audit.byte_copies.n_surplus_per_split)}",
        f"groups: {audit.groups.n_groups:,} of {audit.groups.n_files:,} files, {audit.groups.n_across_splits:,} across"
        f" splits, {audit.groups.n_conflicts:,} with contradicting labels",
        f"links: {_counts(audit.groups.n_links)}",
        *(_known_groups(audit.known_groups) if audit.known_groups else []),
        f"file names under several labels: {audit.file_names.n_in_several_labels:,}",
    ]
    for split, lookup in audit.file_names.lookup.items():
        lines.append(f"label of {split} by file name alone: {100 * lookup.accuracy:.2f} %")
    for split, curve in (audit.features.curves if audit.features else {}).items():
        fifths = "/".join(f"{100 * fifth.accuracy:.1f}" for fifth in curve.quintiles)
        lines.append(f"nearest training file, {split}: {100 * curve.accuracy:.1f} %; near to far: {fifths} %")
    if audit.marks:
        lines.append(f"watermark candidates: {len(audit.marks.marks):,}")
    if audit.splits:
        lines.append(f"split_clean: {_counts(audit.splits.n_clean)}")
    return [*lines, *(f"not run: {part}: {reason}" for part, reason in audit.not_run.items())]


def figures_page(audit: Audit) -> str:
    """The same as Markdown: what can be passed on where the photographs cannot."""
    lines = "\n".join(f"- {markdown.plain(line.strip())}" for line in figures(audit))
    return f"# Audit of {markdown.plain(audit.settings['images'])}\n\n{lines}\n"


def _known_groups(known: KnownGroups) -> list[str]:
    agreed = [
        f"{kind} {known.n_links_agreed[kind]:,} of {n_links:,}" for kind, n_links in known.n_links.items() if n_links
    ]
    return [
        f"known groups ({known.column}): {known.n_groups:,} of {known.n_files:,} files,"
        f" {known.n_groups_across_splits:,} across splits",
        f"pairs in one group that are in one known group: {known.n_pairs_agreed:,} of {known.n_pairs:,}, precision"
        f" {_percent(known.precision)}; of {known.n_pairs_known:,} pairs known, recall {_percent(known.recall)}",
        f"links within a known group: {', '.join(agreed) or 'none'}",
    ]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _counts(counts: dict[str, int]) -> str:
    return f"({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else ""
