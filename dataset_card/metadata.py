"""The card's YAML, generated from the shards: where the Hub and `datasets` read names, types and sizes."""

from typing import Any

from huggingface_hub import DatasetCardData

from builders.features import Feature
from dataset_card.facts import Facts
from dataset_card.statistics import SetStatistics

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
TAGS = ("dermatology", "medical", "vision-language", "image-descriptions", "synthetic", "croissant", "vl-dermnet")
# The Hub shows these three to people who ask for access; they do nothing unless the repository is gated.
_GATE: dict[str, Any] = {
    "extra_gated_heading": "Before you ask for access",
    "extra_gated_prompt": (
        "The descriptions were written by machines and reviewed by no clinician. They are for research, never for"
        " diagnosis, triage or treatment. The photographs belong to their owners."
    ),
    "extra_gated_fields": {
        "I will not use this dataset for diagnosis, triage, treatment or any other clinical purpose": "checkbox",
        "I will not try to identify anybody": "checkbox",
    },
}


def card_metadata(facts: Facts) -> DatasetCardData:
    """The front matter of a card."""
    chosen = facts.choices.license
    return DatasetCardData(
        pretty_name=facts.choices.pretty_name,
        language=["en"],
        multilinguality=["monolingual"],
        license=chosen.license,
        license_name=chosen.name,
        license_link=chosen.link,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        source_datasets=["extended|other"],
        size_categories=[size_category(max(each.n_rows for each in facts.statistics.values()))],
        task_categories=["image-to-text", "image-classification"] if facts.with_images else ["text-classification"],
        task_ids=["multi-class-image-classification" if facts.with_images else "multi-class-classification"],
        tags=list(TAGS),
        configs=facts.configs,
        dataset_info=[_dataset_info(name, each) for name, each in facts.statistics.items()],
        **_GATE,
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


def _feature(feature: Feature) -> dict[str, Any]:
    """One column's type in the Hub's YAML dialect, for the types that a dataset folder uses."""
    match feature["_type"]:
        case "Image":
            return {"dtype": "image"}
        case "ClassLabel":
            # the Hub wants numbers as keys, written as strings
            return {"dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(feature["names"])}}}}
        case "List":
            return {"list": feature["feature"]["dtype"]}
        case "Value":
            return {"dtype": feature["dtype"]}
        case _:
            raise TypeError(f"no YAML form for {feature!r}")
