"""Compare a dataset's rows with local photographs by path and sha256: found, missing, changed, extra."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builders.sources import open_source


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """Which rows have their photograph here: relative paths, sorted.

    `changed` files are there with other bytes; `missing` ones are absent or unreadable; `extra` image files belong to
    no row. `state` is a hash over what was found, so that it changes when a file does.
    """

    found: frozenset[str]
    missing: list[str]
    changed: list[str]
    extra: list[str]
    state: str

    def describe(self, images: str | Path) -> str:
        """One line per kind of trouble, with the first few names; "" if there is none."""
        n_rows = len(self.found) + len(self.missing) + len(self.changed)
        return describe_unmatched(images, n_rows, self.missing, self.changed)


def describe_unmatched(images: str | Path, n_rows: int, missing: list[str], changed: list[str]) -> str:
    """One line for the photographs that are missing, one for those with other bytes, of `n_rows`; "" if none."""
    lines: list[str] = []
    if missing:
        lines.append(f"{len(missing)} of {n_rows} images are not in {images}: {some(missing)}")
    if changed:
        lines.append(f"{len(changed)} of {n_rows} images in {images} have other bytes: {some(changed)}")
    return "\n".join(lines)


def match_images(images: str | Path, expected: Mapping[str, str]) -> ImageMatch:
    """Read and hash every expected file of IMAGES once. `expected` maps relative path -> hex sha256."""
    with open_source(images) as source:
        there = frozenset(source.paths())
    missing: list[str] = []
    changed: list[str] = []
    state = hashlib.sha256()
    for path, digest in hash_images(images, sorted(expected)):
        state.update(f"{path}\0{digest}\n".encode())
        if digest is None:
            missing.append(path)
        elif digest != expected[path]:
            changed.append(path)
    return ImageMatch(
        found=frozenset(expected).difference(missing, changed),
        missing=missing,
        changed=changed,
        extra=sorted(path for path in there if path not in expected),
        state=state.hexdigest(),
    )


def hash_images(images: str | Path, paths: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Each path with the hex sha256 of its bytes, None where it cannot be read; one file in memory at a time."""
    with open_source(images) as source:
        for path in paths:
            try:
                yield path, hashlib.sha256(source.read(path)).hexdigest()
            except OSError:
                yield path, None


def some(names: list[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
