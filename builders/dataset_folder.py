"""What a dataset folder holds: its description sets, their shards, its checksums; and how to know one of ours."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builders.errors import UserError
from builders.files import check_writable, read_json, sha256_of, write_atomic
from builders.join_images import some

SPLITS = ("train", "validation", "test")
CHECKSUMS = "SHA256SUMS"
PROVENANCE = "provenance"
AUDIT = "audit"
_CHECKSUM = re.compile(r"([0-9A-Fa-f]{64})  ([^\r\n]+)\r?")
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_KEYS = ("is_primary", "build", "run", "summary")  # of provenance/<name>.json
_RESERVED = frozenset({"data", "provenance", "audit", "assets"})  # `datasets` reserves "data"; the rest are our folders


@dataclass(frozen=True, slots=True)
class DescriptionSet:
    """One description set of a dataset folder, as its `provenance/<name>.json` tells.

    `shards` maps each split to its Parquet files in order; empty where the files are not here (yet).
    `run` and `summary` are the run's own; `build` holds the seed, the splits' parameters and all counts of the build.
    """

    name: str
    is_primary: bool
    shards: dict[str, list[Path]]
    run: dict[str, Any]
    summary: dict[str, Any] | None
    build: dict[str, Any]


def check_set_name(name: str) -> None:
    """Raise `UserError` unless `name` can be a folder, a config of `datasets` and a word in YAML."""
    if not _SET_NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise UserError(
            f"'{name}' cannot name a description set: use letters, digits, '.', '_' and '-', at most 96 of them, "
            f"and none of {', '.join(sorted(_RESERVED))}"
        )


def read_sets(folder: Path) -> list[DescriptionSet]:
    """The description sets of a dataset folder, the primary one first, then by name.

    Raises `UserError` where the folder is not a dataset folder of ours.
    """
    files = sorted((folder / PROVENANCE).glob("*.json"))
    if not files:
        raise UserError(
            f"{folder} is not a dataset folder: it holds no {PROVENANCE}/*.json",
            f"vl-dermnet build IMAGES --run RUN --out '{folder}'",
        )
    sets = [_read_set(folder, file) for file in files]
    return sorted(sets, key=lambda each: (not each.is_primary, each.name))


def _read_set(folder: Path, file: Path) -> DescriptionSet:
    provenance: Any = read_json(file)
    name = file.stem
    check_set_name(name)  # it becomes a path: a stranger's dataset may hold anything
    lacking = [key for key in _KEYS if not isinstance(provenance, dict) or key not in provenance]
    if lacking:
        raise UserError(f"{file} is damaged: it lacks {', '.join(lacking)}", "build or download the dataset again")
    shards = {split: sorted((folder / name).glob(f"{split}-?????-of-?????.parquet")) for split in SPLITS}
    return DescriptionSet(
        name=name,
        is_primary=provenance["is_primary"],
        shards={split: files for split, files in shards.items() if files},
        run=provenance["run"],
        summary=provenance["summary"],
        build=provenance["build"],
    )


def choose_set(sets: list[DescriptionSet], set_name: str | None) -> DescriptionSet:
    """The set called `set_name`, or the primary one. Raises `UserError` on an unknown name."""
    if set_name is None:
        return sets[0]
    for each in sets:
        if each.name == set_name:
            return each
    raise UserError(f"unknown description set '{set_name}'; choose one of: {', '.join(each.name for each in sets)}")


def files_in(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below `folder` but its checksum file, sorted."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path != CHECKSUMS)


def write_checksums(folder: Path, known: dict[str, str] | None = None) -> None:
    """Write `SHA256SUMS` over every other file in `folder`, in the format of `sha256sum -c`.

    `known` maps relative paths to the sha256 of files that were hashed while they were written.
    """
    known = known or {}
    _write_checksums(folder, {path: known.get(path) or sha256_of(folder / path) for path in files_in(folder)})


def _write_checksums(folder: Path, checksums: dict[str, str]) -> None:
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(checksums.items()))
    write_atomic(folder / CHECKSUMS, lambda part: part.write_text(lines, encoding="utf-8"))


def read_checksums(folder: Path) -> dict[str, str]:
    """Relative path -> hex sha256, as `SHA256SUMS` states it; empty where there is none.

    Lines of another form count for nothing here; `check` tells them.
    """
    if not (folder / CHECKSUMS).is_file():
        return {}
    lines = (folder / CHECKSUMS).read_bytes().decode("utf-8", "backslashreplace").split("\n")
    return {match[2]: match[1].lower() for match in map(_CHECKSUM.fullmatch, lines) if match is not None}


def refresh_checksum(folder: Path, path: str) -> None:
    """Bring the line of one file in `SHA256SUMS` up to date; nothing where there are no checksums yet."""
    checksums = read_checksums(folder)
    if checksums:
        _write_checksums(folder, checksums | {path: sha256_of(folder / path)})


def check_replaceable(folder: Path) -> None:
    """Raise `UserError` unless `folder` is absent, empty, or an earlier build that nobody has added a file to."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder", "choose another --out")
    check_writable(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return
    known = read_checksums(folder)
    if not known or not (folder / PROVENANCE).is_dir():
        raise UserError(f"{folder} is not empty and not a dataset folder; it was left as it is", "choose another --out")
    foreign = [path for path in files_in(folder) if path not in known]
    if foreign:
        raise UserError(
            f"{folder} holds {len(foreign)} files that no build wrote, and would lose them: {some(foreign)}",
            "move them away, or choose another --out",
        )


def configs_of(folder: Path) -> list[dict[str, Any]]:
    """The `configs` key of a card's YAML: per set and split a pattern of its shards, the primary set by default.

    `description` carries a hash of the rows. `datasets` names its cache of a local folder by the folder's last name
    and this YAML alone, so without it a rebuilt dataset, or another of the same name, would be served the old rows.
    """
    configs: list[dict[str, Any]] = []
    for each in read_sets(folder):
        files = [{"split": split, "path": f"{each.name}/{split}-*"} for split in each.shards]
        config = {"config_name": each.name, "data_files": files, "description": f"rows {each.build['rows_sha256']}"}
        configs.append(config | ({"default": True} if each.is_primary else {}))
    return configs


def write_front_matter(folder: Path) -> None:
    """Write a README.md of nothing but `configs`, which `load_dataset` needs; the card replaces it."""
    front_matter = yaml.safe_dump({"configs": configs_of(folder)}, sort_keys=False)
    write_atomic(folder / "README.md", lambda part: part.write_text(f"---\n{front_matter}---\n", encoding="utf-8"))
