"""A dataset on the Hub at one commit: its images, zip, Parquet or tar files, fetched into the Hub's own cache."""

import glob
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from huggingface_hub import (
    HfUri,
    get_cached_repo_tree,
    hf_hub_download,
    parse_hf_uri,
    resolve_revision,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfUriError
from huggingface_hub.utils import tqdm

from builders.errors import UserError
from builders.sources.hub_errors import explained
from builders.sources.kinds import hub_address, kind_of_archive, kind_of_files
from builders.sources.layout import check_size, is_image_path
from builders.sources.naming import check_names

if TYPE_CHECKING:
    from builders.sources import Source

_FIX = "hf://datasets/OWNER/NAME, with @REVISION and /FOLDER behind it where wanted"


class HubSource:
    """The images of `hf://datasets/OWNER/NAME[@REVISION][/FOLDER or file]`; `name` holds the commit that it means.

    Images that are files of their own are fetched when they are read, archives when the source is opened. What was
    fetched once is read without a network where the address names a commit, as `pin` writes it.
    """

    def __init__(self, address: str | Path) -> None:
        self._uri = _parse(pin(address))
        self.name = self._uri.to_uri()
        tree = _tree(self._uri)
        inside = self._uri.path_in_repo
        self._n_bytes = {name[len(inside) :].lstrip("/"): size for name, size in tree.items() if _is_in(name, inside)}
        self._inner: Source | None = None
        if inside in tree:
            self._inner = self._fetch(_kind_of_one(inside, self.name), [inside], inside)
        elif not self._n_bytes:
            raise UserError(f"there is no file or folder '{inside}' in {self.name}", f"hf datasets ls {self._uri.id}")
        else:
            kind, archive = kind_of_files(self._n_bytes, self.name)
            if kind != "folder":
                names = [archive] if archive else [name for name in self._n_bytes if kind_of_archive(name) == kind]
                self._inner = self._fetch(kind, [self._inside(name) for name in names], self._inside(archive))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._inner is not None:
            self._inner.__exit__()

    def paths(self) -> Iterator[str]:
        """Relative paths of all images, sorted by code point, as the kind of source inside gives them."""
        if self._inner is not None:
            yield from self._inner.paths()
        else:
            yield from sorted(path for path in self._n_bytes if is_image_path(path))

    def read(self, path: str) -> bytes:
        """The bytes of one image. `UserError` where the Hub does not give them: no fault of the image's."""
        if self._inner is not None:
            return self._inner.read(path)
        check_size(self.size(path))
        with explained(self.name):
            file = hf_hub_download(
                self._uri.id,
                self._inside(path),
                repo_type="dataset",
                revision=self._uri.revision,
                tqdm_class=_NoBar,
            )
        return Path(file).read_bytes()

    def size(self, path: str) -> int:
        """The length of one image in bytes, as the Hub states it."""
        if self._inner is not None:
            return self._inner.size(path)
        if path not in self._n_bytes:
            raise FileNotFoundError(f"no file '{path}' in {self.name}")
        return self._n_bytes[path]

    def modified_ns(self, path: str) -> int:
        """When these bytes came to this machine, in nanoseconds since 1970; now, where they have not come yet.

        The Hub tells no time per file. Its cache keeps a file per content, so that another content is a later file.
        """
        if self._inner is not None:
            return self._inner.modified_ns(path)
        inside = self._inside(path)
        cached = try_to_load_from_cache(self._uri.id, inside, revision=self._uri.revision, repo_type="dataset")
        return Path(cached).stat().st_mtime_ns if isinstance(cached, str) else time.time_ns()

    def _inside(self, path: str) -> str:
        return str(PurePosixPath(self._uri.path_in_repo) / path)

    def _fetch(self, kind: str, names: list[str], inside: str) -> "Source":
        """The source of a kind at `inside`, where the cache has put the fetched files `names`."""
        from builders.sources import open_kind  # which knows this file

        with explained(self.name):
            snapshot = snapshot_download(
                self._uri.id,
                repo_type="dataset",
                revision=self._uri.revision,
                allow_patterns=[glob.escape(name) for name in names],
            )
        return open_kind(kind, Path(snapshot) / inside)


def pin(address: str | Path) -> str:
    """The address with the commit that its branch, its tag or nothing means now.

    Where the Hub cannot be reached that is the commit last seen, and huggingface_hub warns of it.
    """
    uri = _parse(address)
    with explained(uri.to_uri()):
        commit = resolve_revision(uri.id, repo_type="dataset", revision=uri.revision).resolved
    return replace(uri, revision=commit).to_uri()


def _parse(address: str | Path) -> HfUri:
    try:
        uri = parse_hf_uri(hub_address(address))
    except HfUriError as error:
        raise UserError(f"cannot read the address {hub_address(address)}: {error.msg.strip()}", _FIX) from error
    if uri.type != "dataset":
        raise UserError(f"{hub_address(address)} is the address of a {uri.type}, not of a dataset", _FIX)
    return uri


def _tree(uri: HfUri) -> dict[str, int]:
    """All files of the commit and their lengths in bytes: asked for once, and kept in the Hub's cache for ever."""
    with explained(uri.to_uri()):
        try:
            files = get_cached_repo_tree(uri.id, repo_type="dataset", revision=uri.revision)
        except CachedRepoTreeNotFoundError:
            snapshot_download(  # of a file that every repository has: what counts is the list that it leaves behind
                uri.id,
                repo_type="dataset",
                revision=uri.revision,
                allow_patterns=[".gitattributes"],
                tqdm_class=_NoBar,
            )
            files = get_cached_repo_tree(uri.id, repo_type="dataset", revision=uri.revision)
    n_bytes = {file.path: file.size for file in files}
    check_names(n_bytes, uri.to_uri())
    return n_bytes


def _kind_of_one(name: str, address: str) -> str:
    kind = kind_of_archive(name)
    if not kind:
        raise UserError(f"cannot read images from {address}: it is neither a folder nor a .zip, .parquet or .tar file")
    return kind


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


class _NoBar(tqdm):  # pyright: ignore[reportMissingTypeArgument, reportUntypedBaseClass]  # untyped there
    """A progress bar that is not shown: a folder of images would show thousands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})
