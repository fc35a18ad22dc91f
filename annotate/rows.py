"""From an engine's answer to rows of the description set: one for each file that holds the image."""

from annotate.engines import Answer
from annotate.provenance import utc_now
from annotate.publishable import publishable_text
from annotate.seen import Seen
from builders.schema import Description, IndexRow


def rows_of(
    answer: Answer,
    copies: list[IndexRow],
    seen: dict[str, Seen],
    engine_id: str,
    flags: tuple[str, ...],
    retries: int,
    temperature: float,
) -> list[Description]:
    """One row per copy of the described image; `attempt` counts on from the row that is there already."""
    now = utc_now()
    return [
        Description(
            image_id=row.image_id,
            image_sha256=row.image_sha256,
            status="failed" if answer.error else "ok",
            reason=publishable_text(answer.error),  # a dataset tells why an image has no text
            description=answer.text,
            finish_reason=answer.finish_reason,
            n_image_tokens=answer.n_image_tokens,
            n_prompt_tokens=answer.n_prompt_tokens,
            n_output_tokens=answer.n_output_tokens,
            n_tiles=answer.n_tiles,
            attempt=1 + (seen[row.image_id].attempt if row.image_id in seen else 0),
            retries=retries,
            temperature=temperature,
            flags=flags,
            findings=answer.findings,
            engine_id=engine_id,
            described_at=now,
        )
        for row in copies
    ]


def refused_rows(index: list[IndexRow], seen: dict[str, Seen]) -> list[Description]:
    """A row for each refused file that has none yet: every indexed file stands in the set, with its reason.

    Where a file had a description before it was damaged, `attempt` counts on, so that this row is the one that counts.
    """
    now = utc_now()
    return [
        Description(
            image_id=row.image_id,
            image_sha256=row.image_sha256,
            status="refused",
            reason=row.reason,
            description="",
            finish_reason="",
            n_image_tokens=0,
            n_prompt_tokens=0,
            n_output_tokens=0,
            n_tiles=0,
            attempt=1 + seen[row.image_id].attempt if row.image_id in seen else 0,
            retries=0,
            temperature=0.0,
            flags=(),
            findings="",
            engine_id="",
            described_at=now,
        )
        for row in index
        if row.status == "refused" and not _stands(row, seen.get(row.image_id))
    ]


def _stands(row: IndexRow, known: Seen | None) -> bool:
    return known is not None and known.status == "refused" and known.image_sha256 == row.image_sha256


def seen_of(row: Description) -> Seen:
    """What a run remembers of a row that it wrote: all but the text."""
    return Seen(
        image_id=row.image_id,
        image_sha256=row.image_sha256,
        status=row.status,
        reason=row.reason,
        attempt=row.attempt,
        retries=row.retries,
        flags=row.flags,
        described_at=row.described_at,
    )
