"""Which images still need an answer, and their pixels, decoded in processes ahead of the engine."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image

from annotate.engines import Request
from builders.decode import BadImageError, decode_rgb
from builders.schema import Description, IndexRow
from builders.sources import Source, open_source
from builders.workers import WorkerDiedError, ordered_map

_OPEN: dict[str, Source] = {}  # one open source per worker process


@dataclass(frozen=True, slots=True)
class Unusable:
    """An image that was fine when it was indexed and is not any more; `reason` says how."""

    key: str
    reason: str


def group_by_bytes(rows: list[IndexRow]) -> dict[str, list[IndexRow]]:
    """Rows that can be described, by `image_sha256`: copies are described once."""
    groups: dict[str, list[IndexRow]] = {}
    for row in rows:
        if row.status == "ok":
            groups.setdefault(row.image_sha256, []).append(row)
    return groups


def without_done(groups: dict[str, list[IndexRow]], done: dict[str, Description]) -> dict[str, list[IndexRow]]:
    """The groups that have a row without an answer. Rows that failed are asked again, refused ones are not."""

    def is_done(row: IndexRow) -> bool:
        known = done.get(row.image_id)
        return known is not None and known.status != "failed" and known.image_sha256 == row.image_sha256

    return {key: rows for key, rows in groups.items() if not all(map(is_done, rows))}


def requests(
    images: str, pending: dict[str, list[IndexRow]], n_workers: int, on_unusable: Callable[[Unusable], None]
) -> Iterator[Request]:
    """One request per group, in order, its pixels decoded by `n_workers` processes a bounded number ahead."""
    items = [(key, rows[0].path) for key, rows in pending.items()]
    decoded = ordered_map(partial(decode_one, images), items, n_workers, ahead=8 * max(1, n_workers))
    for (key, _), result in zip(items, decoded, strict=True):
        if isinstance(result, Image.Image):
            yield Request(key, result)
        else:
            on_unusable(Unusable(key, str(result)))


def decode_one(images: str, item: tuple[str, str]) -> Image.Image | str | WorkerDiedError:
    """The pixels of one file, or the reason why not: gone, changed since it was indexed, or damaged."""
    key, path = item
    source = _OPEN.get(images)
    if source is None:
        source = _OPEN[images] = open_source(images)
    try:
        data = source.read(path)
        if hashlib.sha256(data).hexdigest() != key:
            return "the file has changed since it was indexed"
        return decode_rgb(data)[0]
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except BadImageError as error:
        return str(error)
