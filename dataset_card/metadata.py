"""The card's YAML, generated from the shards: where the Hub and `datasets` read names, types and sizes."""

from dataclasses import dataclass
from typing import Any

import datasets
from huggingface_hub import DatasetCardData

from dataset_card.statistics import SetStatistics

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


@dataclass(frozen=True, slots=True)
class CardLicense:
    """The YAML's `license`, and for `other` its name (lower case, no spaces) and the address of its text."""

    license: str = "other"
    name: str | None = "not-yet-decided"
    link: str | None = None

    @property
    def is_decided(self) -> bool:
        """Whether anybody has chosen: the default only says that nobody has."""
        return self != CardLicense()


def card_metadata(
    configs: list[dict[str, Any]], statistics: dict[str, SetStatistics], pretty_name: str, card_license: CardLicense
) -> DatasetCardData:
    """The front matter of a card. `statistics` has the primary set first."""
    with_images = any("image" in each.features for each in statistics.values())
    return DatasetCardData(
        pretty_name=pretty_name,
        language=["en"],
        license=card_license.license,
        license_name=card_license.name,
        license_link=card_license.link,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        size_categories=[size_category(max(each.n_rows for each in statistics.values()))],
        task_categories=["image-to-text", "image-classification"] if with_images else ["text-classification"],
        tags=["dermatology", "medical", "vision-language", "image-descriptions", "synthetic", "vl-dermnet"],
        configs=configs,
        dataset_info=[_dataset_info(name, each) for name, each in statistics.items()],
    )


def size_category(n_rows: int) -> str:
    """The Hub's size category of so many rows."""
    return next((name for limit, name in _SIZES.items() if n_rows < limit), "n>10M")


def _dataset_info(config_name: str, statistics: SetStatistics) -> dict[str, Any]:
    return {
        "config_name": config_name,
        "features": [{"name": name, **_feature(feature)} for name, feature in statistics.features.items()],
        "splits": [
            {"name": split, "num_bytes": size.n_bytes, "num_examples": size.n_rows}
            for split, size in statistics.splits.items()
        ],
        "download_size": sum(size.file_bytes for size in statistics.splits.values()),
        "dataset_size": sum(size.n_bytes for size in statistics.splits.values()),
    }


def _feature(feature: Any) -> dict[str, Any]:
    """One column's type in the Hub's YAML dialect, for the types that a dataset folder uses."""
    match feature:
        case datasets.Image():
            return {"dtype": "image"}
        case datasets.ClassLabel():
            # the Hub wants numbers as keys, written as strings
            return {"dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(feature.names)}}}}
        case datasets.List():
            return {"list": feature.feature.dtype}
        case datasets.Value():
            return {"dtype": feature.dtype}
        case _:
            raise TypeError(f"no YAML form for {feature!r}")
