"""All that an audit found, as `audit.json` holds it."""

from dataclasses import dataclass
from typing import Any

from builders.audit.contents import Balance, Contents, Listing
from builders.audit.copies import ByteCopies
from builders.audit.curve import DistanceCurve
from builders.audit.groups import GroupFacts
from builders.audit.known_groups import KnownGroups
from builders.audit.marks import Marks
from builders.audit.names import FileNames
from builders.splits import SplitCounts


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """Which features were used, how many of the files they know, and accuracy by distance to train, by split."""

    encoders: list[str]
    file_sha256: str
    n_files: int
    n_missing: int
    curves: dict[str, DistanceCurve]


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings, as `audit.json` holds them. A part that was not run is None, and `not_run` says why.

    `dermnet` compares the files with Kaggle's DermNet, in lines to show; none where it is another set.
    """

    schema_version: int
    settings: dict[str, Any]
    not_run: dict[str, str]
    contents: Contents
    dermnet: list[str]
    blank: Listing | None
    balance: dict[str, Balance]
    byte_copies: ByteCopies
    file_names: FileNames
    features: FeatureFacts | None
    groups: GroupFacts
    known_groups: KnownGroups | None
    marks: Marks | None
    splits: SplitCounts | None
