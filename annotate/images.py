"""The images of a run: their index, brought up to date with the source, and which of them are the same."""

from annotate.config import AnnotateConfig
from annotate.progress import Progress
from annotate.seen import Seen
from builders.errors import UserError
from builders.index import default_workers, iter_index, no_image_error, read_index, stale_paths, write_index
from builders.schema import IndexRow, image_id_of
from builders.sources import open_source


def index_of(config: AnnotateConfig, seen: dict[str, Seen], progress: Progress) -> list[IndexRow]:
    """The index of this run: the one given, or the one in the run folder brought up to date with the source."""
    index_file = config.out / "index.parquet"
    known_file = config.index or index_file
    known = read_index(known_file) if config.index or index_file.exists() else []
    with open_source(config.images) as source:
        paths = list(source.paths())
        if config.limit is not None:
            paths = sorted(sorted(paths, key=image_id_of)[: config.limit])
        failed = {image_id for image_id, row in seen.items() if row.status == "failed"}
        made_at_ns = known_file.stat().st_mtime_ns if known else 0
        stale = stale_paths(source, paths, known, made_at_ns, suspects=failed)
    fresh = {row.image_id: row for row in known}
    n_workers = default_workers(len(stale)) if config.n_workers is None else config.n_workers
    for row in progress.track(iter_index(config.images, stale, n_workers), total=len(stale), what="checking"):
        fresh[row.image_id] = row
    index = [fresh[image_id_of(path)] for path in paths]
    if not index:
        raise no_image_error(config.images)
    _refuse_where_all_is_lost(config.images, known, index)
    by_path = sorted(index, key=lambda row: row.path)
    if config.index or stale or by_path != known:
        write_index(index_file, by_path)
    return index  # in the source's order: some read faster so


def _refuse_where_all_is_lost(images: str, known: list[IndexRow], index: list[IndexRow]) -> None:
    """Raise `UserError` where no file that could be read before can be read now: a disk that is away, not bad files."""
    readable = {row.image_id for row in known if row.status == "ok"}
    now = [row for row in index if row.image_id in readable]
    if now and not any(row.image_sha256 for row in now):
        raise UserError(
            f"none of the {len(now):,} photographs in {images} that could be read before can be read now: "
            f"{now[0].path}: {now[0].reason}",
            "bring their disk back, then type the same command again",
        )


def group_by_bytes(rows: list[IndexRow]) -> dict[str, list[IndexRow]]:
    """Rows that can be described, by `image_sha256`: copies are described once."""
    groups: dict[str, list[IndexRow]] = {}
    for row in rows:
        if row.status == "ok":
            groups.setdefault(row.image_sha256, []).append(row)
    return groups
