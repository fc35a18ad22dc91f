"""Open a dataset, from a folder or the Hub, and join local photographs to it by path and sha256."""

import glob
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from builders.dataset_folder import DescriptionSet, choose_set, read_sets
from builders.errors import UserError
from builders.join_images import ImageMatch, match_images, some
from builders.shards import check_same_schema
from builders.sources import open_source
from builders.sources.folder import FolderSource

_LOG = logging.getLogger(__name__)
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load(
    dataset: str | Path,
    *,
    set_name: str | None = None,
    images: str | Path | None = None,
    revision: str | None = None,
    allow_missing: bool = False,
) -> datasets.DatasetDict:
    """One description set of a dataset, as a `DatasetDict` of the source's splits (`train`, `test`, …).

    `dataset` is a dataset folder or a Hub repository's id, `set_name` one of its sets (the primary one if None),
    `revision` a branch, tag or commit of the repository. `images` is a folder or an archive: each row's photograph is
    then joined as a decoded-on-demand `image` column, first in order, taken only where path and sha256 both agree.
    A row without its photograph is an error, or `image` is None there with `allow_missing`.

    Raises `UserError` on an unknown dataset, set or revision, on shards that disagree, and on missing images.
    """
    folder = locate(dataset, set_name=set_name, revision=revision)
    chosen = choose_set(read_sets(folder), set_name)
    if not chosen.shards:
        raise UserError(f"the set '{chosen.name}' of {dataset} has no shards: the folder is incomplete")
    check_same_schema([shard for shards in chosen.shards.values() for shard in shards])
    loaded = _load_shards(chosen)
    return loaded if images is None else _join(loaded, images, allow_missing)


def locate(dataset: str | Path, *, set_name: str | None = None, revision: str | None = None) -> Path:
    """The folder that holds a dataset: itself, or the Hub's snapshot of it, whose folder name is the commit's hash.

    Of a repository only the chosen set and the provenance are fetched, both from one commit.
    """
    if Path(dataset).is_dir():
        if revision is not None:
            raise UserError(f"{dataset} is a local folder and has no revisions; leave out the revision '{revision}'")
        return Path(dataset)
    if isinstance(dataset, Path) or not _REPO_ID.fullmatch(dataset):
        raise UserError(
            f"no dataset folder at {dataset}, and it is no Hub repository's id (OWNER/NAME)",
            "check the path; `vl-dermnet build IMAGES --run RUN --out DATASET` makes such a folder",
        )
    return _fetch(dataset, set_name, revision)


def _fetch(repo_id: str, set_name: str | None, revision: str | None) -> Path:
    """Download one set at exactly one commit.

    A branch or tag is asked of the Hub each time, because its clients fall back silently to a cached copy after 401,
    403 and 5xx. A commit's hash cannot go stale, so it works without a network once it is in the cache.
    """
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = "" if revision is None else f" at revision '{revision}'"
    try:
        if revision is None or not _COMMIT.fullmatch(revision):
            try:
                revision = HfApi().dataset_info(repo_id, revision=revision).sha
            except OfflineModeIsEnabled:
                _LOG.warning("HF_HUB_OFFLINE is set: %s%s is what the cache holds, maybe not the newest", repo_id, at)
        about = snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns=["README.md", "provenance/*.json"]
        )
        commit = Path(about).name
        chosen = choose_set(read_sets(Path(about)), set_name)
        folder = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=commit,
            allow_patterns=["README.md", "provenance/*.json", f"{chosen.name}/*.parquet"],
        )
    except RevisionNotFoundError as error:
        raise UserError(f"the Hub has no revision '{revision}' of {repo_id}") from error
    except RepositoryNotFoundError as error:  # also what a private or gated one answers to strangers
        raise UserError(
            f"the Hub has no dataset {repo_id}, or this account may not read it", "check the name; hf auth login"
        ) from error
    except (HfHubHTTPError, httpx2.TransportError, LocalEntryNotFoundError, ConnectionError, RuntimeError) as error:
        raise UserError(  # what Xet raises is a plain `RuntimeError`
            f"cannot get {repo_id}{at} from the Hub: {type(error).__name__}: {error}",
            "try again; a commit's hash as revision, or HF_HUB_OFFLINE=1, opens what was downloaded before",
        ) from error
    except OSError as error:
        what = f"cannot keep {repo_id}{at} in the Hub's cache: {error}"
        raise UserError(what, "make room, or set HF_HOME") from error
    wanted = revision if revision is not None and _COMMIT.fullmatch(revision) else commit
    if Path(folder).name != wanted:
        raise RuntimeError(f"asked the Hub for commit {wanted} of {repo_id} and got {folder}")
    _LOG.info("%s: commit %s", repo_id, commit)
    return Path(folder)


def _load_shards(chosen: DescriptionSet) -> datasets.DatasetDict:
    # Names are escaped because `datasets` takes every file name for a pattern; features come from the shards' metadata.
    files = {split: [glob.escape(str(shard)) for shard in shards] for split, shards in chosen.shards.items()}
    loaded = datasets.load_dataset("parquet", data_files=files)
    if _is_stale(loaded, chosen):
        _LOG.warning("the cache of `datasets` held other rows than %s: read again", chosen.name)
        loaded = datasets.load_dataset("parquet", data_files=files, download_mode="force_redownload")
        if _is_stale(loaded, chosen):
            raise RuntimeError(f"`datasets` reads other rows than the shards of {chosen.name} hold")
    return loaded


def _is_stale(loaded: datasets.DatasetDict, chosen: DescriptionSet) -> bool:
    """Whether a column other than the images differs from the shards'.

    `datasets` knows a local file by its path and time of change alone: one that was replaced by a copy with the same
    time (`cp -p`, `tar`, `rsync -t`) would be read from its cache as it was before.
    """
    for split, shards in chosen.shards.items():
        rows = loaded[split]
        columns = [name for name in rows.column_names if name != "image"]
        stored = pa.concat_tables([pq.read_table(shard, columns=columns) for shard in shards])
        cached = rows.select_columns(columns).with_format("arrow")[:]
        if len(stored) != len(cached) or any(stored[name].to_pylist() != cached[name].to_pylist() for name in columns):
            return True
    return False


def _join(loaded: datasets.DatasetDict, images: str | Path, allow_missing: bool) -> datasets.DatasetDict:
    """Every split of `loaded` with an `image` column in front, from local files that match it."""
    if any("image" in split.column_names for split in loaded.values()):
        raise UserError("this set holds its images already; leave out `images`")
    expected = {
        path: digest
        for split in loaded.values()
        for path, digest in zip(split["path"], split["image_sha256"], strict=True)
    }
    match = match_images(images, expected)
    _report(match, images, allow_missing)
    return datasets.DatasetDict({name: _with_images(split, images, match) for name, split in loaded.items()})


def _report(match: ImageMatch, images: str | Path, allow_missing: bool) -> None:
    """Refuse an incomplete match, or log it where that is allowed; extra files are only ever logged."""
    if match.extra:
        _LOG.info("%d files in %s are not in the dataset: %s", len(match.extra), images, some(match.extra))
    if not match.missing and not match.changed:
        return
    message = match.describe(images)
    if not allow_missing:
        raise UserError(message, "point `images` to the folder or zip that was indexed, or pass allow_missing=True")
    _LOG.warning("%s", message)


def _with_images(split: datasets.Dataset, images: str | Path, match: ImageMatch) -> datasets.Dataset:
    """`split` with its photographs in front: a folder's by path, opened when a row is read; others through a cache.

    A zip's bytes go once through the Arrow cache of `datasets` on disk, as its own loaders do: opening an archive per
    image would read its whole directory each time.
    """
    column = datasets.Features({"image": datasets.Image()})
    paths = [path if path in match.found else None for path in split["path"]]
    with open_source(images) as source:
        if isinstance(source, FolderSource):
            root = source.root.absolute()
            files = [None if path is None else {"bytes": None, "path": str(root / path)} for path in paths]
            joined = datasets.Dataset.from_dict({"image": files}, features=column, split=split.split)
        else:
            arguments = {"images": str(images), "paths": tuple(paths), "state": match.state}
            joined = datasets.Dataset.from_generator(
                _read_images, features=column, gen_kwargs=arguments, split=split.split or datasets.Split.TRAIN
            )
    return datasets.concatenate_datasets([joined, split], axis=1)


def _read_images(images: str, paths: tuple[str | None, ...], state: str) -> Iterator[dict[str, Any]]:
    """Rows for `Dataset.from_generator`; `state` is only there to give a changed archive another cache entry."""
    with open_source(images) as source:
        for path in paths:
            yield {"image": None if path is None else {"bytes": source.read(path), "path": path}}
