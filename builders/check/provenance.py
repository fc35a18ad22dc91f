"""provenance/<set>.json: readable, complete, in agreement with itself and with the other sets."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builders.check.fault import Fault, shown, visible
from builders.dataset_folder import PROVENANCE, SPLITS, DescriptionSet, check_set_name
from builders.errors import UserError
from builders.run_folder import RUN_KEYS
from builders.schema import SCHEMA_VERSION

_SHARED = ("schema_version", "seed", "validation_fraction", "splits")  # of the build: the same for every set


class _Rows(BaseModel):
    model_config = ConfigDict(strict=True)

    n_rows: int
    n_per_split: dict[str, int]
    n_left_out: dict[str, int]


class _Splits(BaseModel):
    model_config = ConfigDict(strict=True)

    n_rows: int
    n_official: dict[str, int]
    n_clean: dict[str, int]
    n_groups: int
    n_rows_in_groups: int
    n_excluded_conflict: int
    n_excluded_across_splits: int
    n_excluded_surplus: int
    n_balanced: int
    n_balanced_per_label: int


class _Build(BaseModel):
    model_config = ConfigDict(strict=True)

    schema_version: int
    with_images: bool
    seed: int
    validation_fraction: float
    rows_sha256: str
    rows: _Rows
    splits: _Splits


Named = dict[str, Any]


class _Run(BaseModel):
    model_config = ConfigDict(strict=True)

    model: Named = {}
    prompt: Named = {}
    engine: Named = {}
    sampling: Named = {}
    preprocessing: Named = {}
    machine: Named = {}
    findings_schema: Named | None = Field(default=None, alias="schema")


class _Summary(BaseModel):
    model_config = ConfigDict(strict=True)

    wall_s: float | None = None
    engine_busy: float | None = None


class _Provenance(BaseModel):
    """The form of what the card and the checks read; a run and a build may say more, and old ones less."""

    model_config = ConfigDict(strict=True)

    set_name: str
    is_primary: bool
    build: _Build
    run: _Run
    summary: _Summary | None


def read_provenance(folder: Path) -> tuple[list[DescriptionSet], list[Fault]]:
    """The sets whose provenance can be used, the primary one first, and what is wrong with the others.

    `builders.dataset_folder.read_sets` stops at the first damaged file; this goes on.
    """
    sets: list[DescriptionSet] = []
    faults: list[Fault] = []
    for file in sorted((folder / PROVENANCE).glob("*.json")):
        name = f"{PROVENANCE}/{visible(file.name)}"
        try:
            check_set_name(file.stem)
            value = json.loads(file.read_bytes())
            _Provenance.model_validate(value)
        except ValidationError as error:
            faults += [
                Fault("provenance", name, ".".join(map(str, each["loc"])), shown(each["input"]), each["msg"])
                for each in error.errors()
            ]
        except (UserError, ValueError, OSError, RecursionError) as error:
            faults.append(Fault("provenance", name, "", visible(str(error)), "a JSON object named after its set"))
        else:
            if value["set_name"] != file.stem:
                faults.append(Fault("provenance", name, "set_name", shown(value["set_name"]), f"'{file.stem}'"))
            sets.append(_as_set(folder, file.stem, value))
    return sorted(sets, key=lambda each: (not each.is_primary, each.name)), faults


def _as_set(folder: Path, name: str, value: dict[str, Any]) -> DescriptionSet:
    shards = {split: sorted((folder / name).glob(f"{split}-?????-of-?????.parquet")) for split in SPLITS}
    return DescriptionSet(
        name=name,
        is_primary=value["is_primary"],
        shards={split: files for split, files in shards.items() if files},
        run=value["run"],
        summary=value["summary"],
        build=value["build"],
    )


def provenance_file(described: DescriptionSet) -> str:
    """The relative path of a set's provenance."""
    return f"{PROVENANCE}/{described.name}.json"


def check_provenance(sets: list[DescriptionSet]) -> Iterator[Fault]:
    """What the provenance says of itself: names, hashes of the prompts, one primary set, one build for all."""
    primary = [each.name for each in sets if each.is_primary]
    if len(primary) != 1:
        yield Fault("provenance", PROVENANCE, "is_primary", f"true in {len(primary)} sets", "true in exactly one set")
    for each in sets:
        file = provenance_file(each)
        for key in RUN_KEYS:
            if not each.run.get(key):
                yield Fault("provenance", file, f"run.{key}", "nothing", "what made this set")
        if each.run.get("set_name") != each.name:
            yield Fault("provenance", file, "run.set_name", shown(each.run.get("set_name")), f"'{each.name}'")
        if each.build["schema_version"] != SCHEMA_VERSION:
            seen = shown(each.build["schema_version"])
            yield Fault("provenance", file, "build.schema_version", seen, str(SCHEMA_VERSION))
        if each.build["with_images"] and not each.is_primary:
            yield Fault("provenance", file, "build.with_images", "true", "true in the primary set only")
        yield from _check_hashes(each, file)
        yield from _check_split_counts(each, file)
        for key in _SHARED:
            if each.build[key] != sets[0].build[key]:
                allowed = f"{shown(sets[0].build[key])}, as in {provenance_file(sets[0])}"
                yield Fault("provenance", file, f"build.{key}", shown(each.build[key]), allowed)


def _check_hashes(described: DescriptionSet, file: str) -> Iterator[Fault]:
    """The prompts against their hashes: the prompt is what a reader copies to make the set again."""
    prompt = described.run.get("prompt", {})
    for text, digest in (("text", "sha256"), ("rendered", "rendered_sha256")):
        if isinstance(prompt.get(text), str) and digest in prompt:
            computed = hashlib.sha256(prompt[text].encode("utf-8", "surrogatepass")).hexdigest()
            if prompt[digest] != computed:
                yield Fault("provenance", file, f"run.prompt.{digest}", shown(prompt[digest]), f"'{computed}'")


def _check_split_counts(described: DescriptionSet, file: str) -> Iterator[Fault]:
    """The counts of the split must add up."""
    splits = described.build["splits"]
    excluded = sum(splits[f"n_excluded_{reason}"] for reason in ("conflict", "across_splits", "surplus"))
    if excluded != splits["n_clean"].get("excluded", 0):
        seen = shown(splits["n_clean"].get("excluded", 0))
        yield Fault("provenance", file, "build.splits.n_clean.excluded", seen, f"{excluded}, the sum of n_excluded_*")
    for key in ("n_official", "n_clean"):
        if sum(splits[key].values()) != splits["n_rows"]:
            seen = f"{sum(splits[key].values())} in all"
            yield Fault("provenance", file, f"build.splits.{key}", seen, f"{splits['n_rows']}, which is n_rows")
