"""Every file against SHA256SUMS: changed, missing and extra ones, and lines that say nothing."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from builders.check.fault import Fault, visible
from builders.dataset_folder import CHECKSUMS, files_in
from builders.files import sha256_of

_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)")
_AUDIT = re.compile(r"audit/(audit\.json|[\w.-]+\.parquet)")  # its page holds photographs, and is never published
_FROM_THE_HUB = (".gitattributes", ".git/", ".cache/huggingface/")  # put there by the Hub and its clients


def check_files(folder: Path) -> Iterator[Fault]:
    """Compare what is in the folder with its checksum file, byte for byte."""
    sums = folder / CHECKSUMS
    if not sums.is_file():
        yield Fault("files", CHECKSUMS, "", "no such file", "a line `<sha256>  <path>` for every file")
        return
    stated: dict[str, str] = {}
    for number, line in enumerate(_lines(sums), start=1):
        match = _LINE.fullmatch(line)
        if match is None or not _is_safe(match[2]) or match[2] in stated:
            allowed = "64 hex digits, two blanks, a path below this folder, each path once"
            yield Fault("files", CHECKSUMS, f"line {number}", visible(line[:200]), allowed)
        else:
            stated[match[2]] = match[1]
    present = {path for path in files_in(folder) if not path.startswith(_FROM_THE_HUB)}
    for path in sorted(present - stated.keys()):
        yield Fault(
            "files", visible(path), "", "a file that the checksums do not list", "only files that a build wrote"
        )
    for path in sorted(path for path in present if path.startswith("audit/") and not _AUDIT.fullmatch(path)):
        yield Fault(
            "files", visible(path), "", "a page or picture of the audit", "audit/audit.json and audit/*.parquet"
        )
    for path, digest in sorted(stated.items()):
        yield from _check_file(folder, path, digest)


def _lines(sums: Path) -> list[str]:
    lines = sums.read_bytes().decode("utf-8", "backslashreplace").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _is_safe(path: str) -> bool:
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts and "\\" not in path


def _check_file(folder: Path, path: str, digest: str) -> Iterator[Fault]:
    file = folder / path
    if not file.is_file():
        what = "not a regular file" if file.exists() else "no such file"
        yield Fault("files", visible(path), "", what, f"a file with sha256 {digest}")
        return
    try:
        found = sha256_of(file)
    except OSError as error:
        yield Fault("files", visible(path), "", f"cannot be read: {error.strerror}", f"a file with sha256 {digest}")
        return
    if found != digest:
        yield Fault("files", visible(path), "", f"sha256 {found}", f"sha256 {digest}")
