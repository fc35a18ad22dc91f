"""All that a card is made of, gathered once: the sets, their statistics, the audit, a person's choices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.dataset_folder import DescriptionSet, configs_of, read_sets
from builders.files import read_json
from dataset_card.choices import CardChoices
from dataset_card.statistics import SetStatistics, count_set


@dataclass(frozen=True, slots=True)
class Facts:
    """What a dataset folder holds; `sets` and `statistics` have the primary set first.

    `configs` is that of the YAML; `audit` is audit/audit.json, None where the dataset was built without an audit.
    """

    dataset: Path
    sets: list[DescriptionSet]
    statistics: dict[str, SetStatistics]
    configs: list[dict[str, Any]]
    audit: dict[str, Any] | None
    choices: CardChoices

    @property
    def primary(self) -> DescriptionSet:
        """The set that `load_dataset` gives by default."""
        return self.sets[0]

    @property
    def with_images(self) -> bool:
        """Whether the photographs themselves are in the primary set."""
        return "image" in self.statistics[self.primary.name].features

    @property
    def splits(self) -> dict[str, Any]:
        """How the split was derived, in numbers: the same in every set's provenance."""
        return self.primary.build["splits"]


def gather(dataset: Path, choices: CardChoices) -> Facts:
    """Read and count a dataset folder. Raises `UserError` where it is not one."""
    sets = read_sets(dataset)
    audit = dataset / "audit" / "audit.json"
    return Facts(
        dataset=dataset,
        sets=sets,
        statistics={each.name: count_set(each) for each in sets},
        configs=configs_of(dataset),
        audit=read_json(audit) if audit.is_file() else None,
        choices=choices,
    )
