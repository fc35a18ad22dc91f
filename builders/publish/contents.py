"""What a folder has to publish: its files and their hashes, checked before anything is sent."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from builders.card_mark import read_card_mark
from builders.check import Fault, check_dataset
from builders.dataset_folder import CHECKSUMS, PROVENANCE, files_in, read_checksums, read_sets
from builders.errors import UserError
from builders.files import sha256_of
from builders.join_images import some
from builders.publish.images import find_images

_MODEL_FILES = ("README.md", "fusion.safetensors")
_MODEL_FORMAT = "vl-dermnet-model"
_WRITTEN = re.compile(  # by train.model.save_model; nothing that can run code when it is loaded is among it
    r"README\.md|config\.json|fusion\.safetensors|(image|text)_backbone/[^/]+\.(json|safetensors)"
    r"|tokenizer/[^/]+\.(json|txt|model|jinja)"
)
_MAX_FAULTS = 5  # named in the message


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file to be in the repository; `path` is relative and POSIX, `source` where its bytes are, or they."""

    path: str
    sha256: str
    n_bytes: int
    source: Path | bytes

    def read(self) -> bytes:
        """All of it."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a repository should hold of `folder`.

    `repo_type` is `dataset` or `model`. `set_names` are the description sets, the primary one first. `files` are keyed
    by path and hold `SHA256SUMS`, whose own hash, `digest`, stands for everything. `images` are the files with
    photographs in them. `card_repo_id` is the repository that a dataset's card names to its readers, "" where it names
    none, and None where there is no card of ours.
    """

    folder: Path
    repo_type: str
    set_names: tuple[str, ...]
    files: dict[str, LocalFile]
    images: tuple[str, ...]
    card_repo_id: str | None = None

    @property
    def digest(self) -> str:
        """Hex sha256 of the list of all hashes."""
        return self.files[CHECKSUMS].sha256


def read_contents(folder: Path) -> Contents:
    """Check `folder` and list what it has to publish. Raises `UserError` where it is damaged or no folder of ours."""
    if (folder / PROVENANCE).is_dir():
        return _read_dataset(folder)
    if _is_model(folder):
        return _read_model(folder)
    raise UserError(
        f"{folder} is neither a dataset folder (it holds no {PROVENANCE}/) nor a model folder (its config.json does not"
        f" say format {_MODEL_FORMAT})",
        f"vl-dermnet build IMAGES --run RUN --out '{folder}', or name a model: EXP/models/NAME",
    )


def _read_dataset(folder: Path) -> Contents:
    faults = check_dataset(folder).faults
    if faults:
        listed = "\n".join(f"  {_in_words(fault)}" for fault in faults[:_MAX_FAULTS])
        more = f"\n  and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise UserError(
            f"{folder} is not as it was built, so it was not published:\n{listed}{more}",
            "build it again: vl-dermnet build IMAGES --run RUN --out DATASET",
        )
    checksums = read_checksums(folder)
    names = tuple(each.name for each in read_sets(folder))
    images = tuple(find_images(folder, sorted(checksums)))
    return Contents(folder, "dataset", names, _files(folder, checksums, None), images, _card_repo_id(folder))


def _card_repo_id(folder: Path) -> str | None:
    mark = read_card_mark((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
    return None if mark is None else mark[1].get("repo_id") or ""


def _in_words(fault: Fault) -> str:
    place = f", {fault.place}" if fault.place else ""
    return f"{fault.file}{place}: {fault.seen}; allowed: {fault.allowed}"


def _is_model(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == _MODEL_FORMAT  # pyright: ignore[reportUnknownMemberType]


def _read_model(folder: Path) -> Contents:
    """A model folder has no checksums of its own unless something wrote them; then they must be right."""
    paths = [path for path in files_in(folder) if not any(part.startswith(".") for part in path.split("/"))]
    lacking = [name for name in _MODEL_FILES if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"the model folder {folder} lacks {', '.join(lacking)}", "train it again")
    strays = [path for path in paths if path != CHECKSUMS and not _WRITTEN.fullmatch(path)]
    if strays:
        raise UserError(
            f"{folder} holds files that training does not write: {some(strays)}", "move them out of the folder"
        )
    checksums = {path: sha256_of(folder / path) for path in paths}
    stated = read_checksums(folder)
    wrong = [path for path, digest in stated.items() if checksums.get(path) != digest]
    if wrong:
        raise UserError(
            f"{len(wrong)} files of {folder} are gone or not what its {CHECKSUMS} says: {some(sorted(wrong))}",
            "copy or train the model again",
        )
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(checksums.items())).encode()
    return Contents(folder, "model", (), _files(folder, checksums, text), tuple(find_images(folder, paths)))


def _files(folder: Path, checksums: dict[str, str], sums: bytes | None) -> dict[str, LocalFile]:
    sources = {path: folder / path for path in checksums}
    files = {path: LocalFile(path, checksums[path], source.stat().st_size, source) for path, source in sources.items()}
    text = (folder / CHECKSUMS).read_bytes() if sums is None else sums
    files[CHECKSUMS] = LocalFile(CHECKSUMS, hashlib.sha256(text).hexdigest(), len(text), text)
    return files
