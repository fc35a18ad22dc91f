"""croissant.json: the dataset for programs, with the RAI vocabulary for what a reader must know.

Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html, and its RAI extension,
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html. It is made of the same facts as the card.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from builders.dataset_folder import DescriptionSet, read_checksums
from builders.features import Feature, Features
from builders.files import sha256_of
from dataset_card import statements
from dataset_card.columns import COLUMNS
from dataset_card.facts import Facts
from dataset_card.metadata import TAGS

CITATION = "La Quatra et al., Vision-Language Multimodal Fusion in Dermatological Disease Classification, 2025"
_PARQUET = "application/x-parquet"
CONTEXT: dict[str, Any] = json.loads(Path(__file__).with_name("croissant_context.json").read_text(encoding="utf-8"))
_DATA_TYPES = {"bool": "sc:Boolean", "float64": "sc:Float", "int32": "sc:Integer", "string": "sc:Text"}


def croissant(facts: Facts) -> dict[str, Any]:
    """The content of croissant.json. Shards are named by their path in the repository and by their sha256."""
    chosen = facts.choices
    url = f"https://huggingface.co/datasets/{chosen.repo_id}" if chosen.repo_id else "https://huggingface.co/datasets"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": chosen.pretty_name,
        "description": _description(facts),
        "keywords": list(TAGS),
        "inLanguage": ["en"],
        "license": chosen.license.link or chosen.license.name or chosen.license.license,
        "url": url,
        "version": f"1.0.0+{_rows_digest(facts)}",  # of other rows another one
        "datePublished": _last_date(facts),
        "citeAs": CITATION,
        "distribution": [*_repository(facts), *(part for each in facts.sets for part in _distribution(facts, each))],
        "recordSet": [
            _record_set(each, facts.statistics[each.name].features, facts.statistics[each.name].n_rows)
            for each in facts.sets
        ],
        **_responsible(facts),
    }


def _description(facts: Facts) -> str:
    what = "with the photographs" if facts.with_images else "without the photographs, which are joined by checksum"
    return (
        f"Descriptions of {facts.splits['n_rows']:,} dermatology photographs by {len(facts.sets)} vision-language"
        f" set-ups, one per photograph and set, {what}. Written by machines, reviewed by no clinician, not for clinical"
        " use."
    )


def _rows_digest(facts: Facts) -> str:
    """Twelve hex digits that stand for the rows of all sets."""
    digests = "".join(str(each.build["rows_sha256"]) for each in facts.sets)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def _last_date(facts: Facts) -> str:
    """The day of the newest run: the same folder gives the same file."""
    dates = [str(each.run.get("created_at", "")) for each in facts.sets]
    dates += [str((each.summary or {}).get("finished_at", "")) for each in facts.sets]
    return max(dates)[:10] or "1970-01-01"


def _repository(facts: Facts) -> list[dict[str, Any]]:
    """The repository that holds the files, as the Hub's own Croissant names it; none while it is not known.

    Then the files are those beside croissant.json. The sha256 of a git repository is what the specification's authors
    ask to be written: https://github.com/mlcommons/croissant/issues/80
    """
    if facts.choices.repo_id is None:
        return []
    return [
        {
            "@type": "cr:FileObject",
            "@id": "repo",
            "name": "repo",
            "description": "the repository on the Hub",
            "contentUrl": f"https://huggingface.co/datasets/{facts.choices.repo_id}",
            "encodingFormat": "git+https",
            "sha256": "https://github.com/mlcommons/croissant/issues/80",
        }
    ]


def _distribution(facts: Facts, described: DescriptionSet) -> list[dict[str, Any]]:
    """The set of files that records are read from, and each shard of it with its checksum."""
    shards = [shard for files in described.shards.values() for shard in files]
    within = {"containedIn": {"@id": "repo"}} if facts.choices.repo_id else {}
    file_set = {
        "@type": "cr:FileSet",
        "@id": described.name,
        "name": described.name,
        **within,
        "encodingFormat": _PARQUET,
        "includes": f"{described.name}/*.parquet",
    }
    checksums = read_checksums(facts.dataset)  # what `check` holds every file against
    return [file_set, *(_file_object(facts.dataset, shard, checksums) for shard in shards)]


def _file_object(dataset: Path, shard: Path, checksums: dict[str, str]) -> dict[str, Any]:
    path = shard.relative_to(dataset).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{shard.stat().st_size} B",
        "encodingFormat": _PARQUET,
        "sha256": checksums.get(path) or sha256_of(shard),
    }


def _record_set(described: DescriptionSet, features: Features, n_rows: int) -> dict[str, Any]:
    """One record per row; the source's split is told by the file's name, the label as its number."""
    records = f"{described.name}-rows"
    by_name = {"fileProperty": "fullpath"}
    split = _field(records, "split", "the source's split", "sc:Text", described.name, by_name)
    split["source"]["transform"] = {"regex": f"{re.escape(described.name)}/(train|validation|test)-.*"}
    fields = [split, *(_column(records, described.name, name, each) for name, each in features.items())]
    return {
        "@type": "cr:RecordSet",
        "@id": records,
        "name": records,
        "description": f"{n_rows:,} descriptions of the set {described.name}, one per photograph",
        "key": {"@id": f"{records}/image_id"},
        "field": fields,
    }


def _column(records: str, file_set: str, name: str, feature: Feature) -> dict[str, Any]:
    meaning, extract = COLUMNS[name].replace("`", ""), {"column": name}
    match feature["_type"]:
        case "Image":
            field = _field(records, name, meaning, "sc:ImageObject", file_set, extract)
            field["source"]["transform"] = {"jsonPath": "bytes"}
        case "ClassLabel":
            numbered = ", ".join(f"{number} {label}" for number, label in enumerate(feature["names"]))
            field = _field(records, name, f"{meaning}, as a number: {numbered}", "sc:Integer", file_set, extract)
        case "List":
            field = _field(records, name, meaning, _DATA_TYPES[feature["feature"]["dtype"]], file_set, extract)
            field["repeated"] = True
        case _:
            field = _field(records, name, meaning, _DATA_TYPES[feature["dtype"]], file_set, extract)
    return field


def _field(
    records: str, name: str, description: str, data_type: str, file_set: str, extract: dict[str, str]
) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": f"{records}/{name}",
        "description": description,
        "dataType": data_type,
        "source": {"fileSet": {"@id": file_set}, "extract": extract},
    }


def _responsible(facts: Facts) -> dict[str, Any]:
    """What responsible use needs to know, in the keys of the RAI extension."""
    left_out = {each.name: sum(each.build["rows"]["n_left_out"].values()) for each in facts.sets}
    return {
        "rai:dataCollection": statements.collection(facts),
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataCollectionMissingData": "; ".join(
            f"{name}: {n_rows:,} photographs of the source have no row, each with its reason in the folder provenance"
            for name, n_rows in left_out.items()
        ),
        "rai:dataPreprocessingProtocol": [statements.PREPROCESSING],
        "rai:dataAnnotationProtocol": [statements.annotation(each) for each in facts.sets],
        "rai:machineAnnotationTools": [_tool(each) for each in facts.sets],
        "rai:annotationsPerItem": f"one per photograph and description set; {len(facts.sets)} sets",
        "rai:annotatorDemographics": [statements.ANNOTATORS],
        "rai:dataUseCases": list(statements.DIRECT_USES),
        "rai:dataBiases": [f"{name}: {what}" for name, what in statements.risks(facts)],
        "rai:dataLimitations": [statements.OUT_OF_SCOPE],
        "rai:dataSocialImpact": statements.SOCIAL_IMPACT,
        "rai:personalSensitiveInformation": [statements.PEOPLE],
        "rai:dataReleaseMaintenancePlan": statements.maintenance(facts),
    }


def _tool(described: DescriptionSet) -> str:
    model, engine = described.run.get("model", {}), described.run.get("engine", {})
    return f"{model.get('id')} at revision {model.get('revision')}, engine {engine.get('kind')}"
