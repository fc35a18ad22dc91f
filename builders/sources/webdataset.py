"""WebDataset tar files, one or many, read in place: `key.jpg` with its label in `key.cls` or `key.json`.

The format: https://github.com/webdataset/webdataset#the-webdataset-format. A plain tar of folders is read, too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Self

from builders.errors import UserError
from builders.sources.folder import archives_below
from builders.sources.layout import IMAGE_SUFFIXES, SPLITS, changed_ns, check_size, is_image_path
from builders.sources.naming import check_names, path_part, split_and_folders, unique_path, without_common
from builders.sources.tar_members import Member, tar_members

MAX_LABEL_BYTES = 1024**2  # of a .cls or .json member
MAX_BRACED = 100_000
_LABEL_KEYS = ("label", "cls")  # of a .json member; the first that is there counts


@dataclass(frozen=True, slots=True)
class _Tar:
    """One file; the paths of its images begin with `folders`. `split` is "" where its name tells none."""

    file: Path
    folders: list[str]
    split: str


class WebDatasetSource:
    """Every image of the tar files by the path `<split>/<label>/<file name>`.

    The split stands in a tar's name or folder; without one, and without a label beside the image, folders inside the
    tar count as they do in a zip file. Of several entries of one tar with the same name the last counts, as for `tar`;
    names that several tars share are told apart by tar and entry. Links and sparse files are listed and not read.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._tars = _tars(Path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def paths(self) -> Iterator[str]:
        """Relative paths of all images, sorted by code point; `UserError` on a name like `../x.jpg`, or on damage."""
        yield from sorted(self._members)

    def read(self, path: str) -> bytes:
        """The bytes of one image; `OSError` if it is a link, or absurdly large."""
        file, member = self._find(path)
        if member.odd:
            raise OSError(member.odd)
        check_size(member.n_bytes)
        return _read(file, member)

    def size(self, path: str) -> int:
        """The length of one image in bytes, as its header states it."""
        return self._find(path)[1].n_bytes

    def modified_ns(self, path: str) -> int:
        """When the image's tar file was last changed, in nanoseconds since 1970: entries' own times are coarse."""
        return changed_ns(self._find(path)[0].stat())

    def _find(self, path: str) -> tuple[Path, Member]:
        try:
            return self._members[path]
        except KeyError as error:
            raise FileNotFoundError(f"no entry goes by '{path}' in {PurePosixPath(self.name).name}") from error

    @cached_property
    def _members(self) -> dict[str, tuple[Path, Member]]:
        members: dict[str, tuple[Path, Member]] = {}
        for tar in self._tars:
            by_name = {str(PurePosixPath(member.name)): member for member in tar_members(tar.file)}
            check_names(by_name, tar.file)
            labels = _labels(tar.file, by_name)
            for number, (name, member) in enumerate(by_name.items()):
                if _is_photograph(name, labels):
                    path = _path(name, labels.get(_key(name)[0], ""), tar)
                    path = unique_path(path, members, f"{path_part(tar.file.stem)}-{number:06d}")
                    members[path] = (tar.file, replace(member, name=""))
        return members


def _path(name: str, label: str, tar: _Tar) -> str:
    """The path of an image `name` in a tar: as it is where its folders tell all, else made of what is known."""
    *inside, file_name = PurePosixPath(name).parts
    own_split = next((SPLITS[folder.lower()] for folder in inside if folder.lower() in SPLITS), "")
    if not label and own_split:
        return "/".join([*tar.folders, *inside, file_name])
    label = path_part(label) or (inside[-1] if inside else "")
    split = tar.split or own_split or "train"
    return "/".join(part for part in [*tar.folders, split, label, file_name] if part)


def _is_photograph(name: str, labels: dict[str, str]) -> bool:
    """Whether an entry is an image, and not a mask or the like (`key.seg.png`) of one that has a label."""
    key, ending = _key(name)
    return is_image_path(name) and (f".{ending}" in IMAGE_SUFFIXES or key not in labels)


def _key(name: str) -> tuple[str, str]:
    """WebDataset's key and ending of an entry, split at the first dot of the file name; the ending in lower case."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.parent / stem), ending.lower()


def _labels(file: Path, by_name: dict[str, Member]) -> dict[str, str]:
    """Key -> label, of all images whose `.cls` or `.json` tells one; `.cls` goes first."""
    labels: dict[str, str] = {}
    keys = {_key(name)[0] for name in by_name if is_image_path(name)}
    for name, member in by_name.items():
        key, ending = _key(name)
        if key not in keys or ending not in ("cls", "json") or (ending == "json" and labels.get(key)):
            continue
        if member.odd or member.n_bytes > MAX_LABEL_BYTES:
            raise UserError(f"{file} holds the label '{name}' of {member.n_bytes:,} bytes; {member.odd or 'too long'}")
        text = _read(file, member)
        labels[key] = text.decode("utf-8", "surrogateescape").strip() if ending == "cls" else _json(text, name, file)
    return labels


def _json(text: bytes, name: str, file: Path) -> str:
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} holds the damaged label '{name}': {error}") from error
    values = [told[key] for key in _LABEL_KEYS if key in told] if isinstance(told, dict) else []
    return str(values[0]).strip() if values and isinstance(values[0], (str, int)) else ""


def _read(file: Path, member: Member) -> bytes:
    with file.open("rb") as opened:
        opened.seek(member.offset)
        content = opened.read(member.n_bytes)
    if len(content) < member.n_bytes:
        raise OSError(f"{file.name} was cut while it was read")
    return content


def _tars(root: Path) -> list[_Tar]:
    names = archives_below(root, ".tar") if root.is_dir() else expand_braces(root.name)
    folder = root if root.is_dir() else root.parent
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"no such tar file: {folder / missing[0]} ({len(missing)} of {len(names)} are missing)")
    told = [split_and_folders(name) for name in names]
    differing = without_common([folders for _, folders in told])
    return [
        _Tar(folder / name, folders, split) for name, (split, _), folders in zip(names, told, differing, strict=True)
    ]


def expand_braces(pattern: str) -> list[str]:
    """`train-{0000..0002}.tar` -> its three names, `{a,b}.tar` -> its two; a name without braces is itself."""
    choices: list[list[str]] = []
    for text, braced in re.findall(r"([^{}]+)|\{([^{}]*)\}", pattern):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", braced)
        if span:
            first, last = span.groups()
            if int(last) - int(first) >= MAX_BRACED:
                raise UserError(f"'{{{braced}}}' in {pattern} stands for more than {MAX_BRACED:,} names")
            choices.append([f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)])
        else:
            choices.append([text] if text else braced.split(","))
    return ["".join(parts) for parts in product(*choices)]
