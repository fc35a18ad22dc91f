"""From asks to rows: passes over what is still to ask, answers judged, the better of two kept, each written at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from annotate.asks import Ask, Asking
from annotate.engines import Answer, EngineFacts
from annotate.flags import Answered, flags_of
from annotate.preflight import N_FIRST, check_first_answers
from annotate.rows import rows_of, seen_of
from annotate.runners import Runner
from annotate.schemas import Schema
from annotate.seen import Retry, Seen, asks_of
from builders.schema import Description, IndexRow

NO_FINDINGS = "no_findings"


@dataclass(slots=True)
class Describer:
    """Everything that turns asks into rows. `groups` are the files of each image, `seen` the rows that stand already.

    `kept` holds, by key, the rows that may be asked again, whole: a retry that is no better leaves the text as it was.
    """

    groups: dict[str, list[IndexRow]]
    seen: dict[str, Seen]
    kept: dict[str, Description]
    retry: Retry
    asking: Asking
    prompt: str
    class_terms: frozenset[str]
    schema: Schema | None
    failed: set[str] = field(default_factory=set[str])

    def to_ask(self) -> dict[str, Ask]:
        """What is still to ask in this session: an image that failed in it waits for the next one."""
        asks = asks_of(self.groups, self.seen, self.retry)
        return {key: ask for key, ask in asks.items() if key not in self.failed}

    def rows(self, answer: Answer, ask: Ask, engine_id: str) -> list[Description]:
        """The rows that an answer makes; they are remembered as seen."""
        answer = self._checked(answer)
        flags = self._flags(answer)
        before = self.kept.pop(ask.key, None) if ask.retry else None
        temperature, findings = self.asking.temperature_of(ask), answer.findings
        if NO_FINDINGS in flags:
            findings = ""
        rows = rows_of(
            replace(answer, findings=findings),
            self.groups[ask.key],
            self.seen,
            engine_id,
            flags,
            ask.retry,
            temperature,
        )
        if before is not None and (answer.error or self._n_bad(flags) >= self._n_bad(before.flags)):
            rows = [_as_before(row, before) for row in rows]
        if answer.error and before is None:
            self.failed.add(ask.key)
        elif self.retry.wants(rows[0].flags, rows[0].retries):
            self.kept[ask.key] = rows[0]
        self.seen.update((row.image_id, seen_of(row)) for row in rows)
        return rows

    def _n_bad(self, flags: tuple[str, ...]) -> int:
        return len(self.retry.flags.intersection(flags))

    def _checked(self, answer: Answer) -> Answer:
        """The answer, without findings that cannot be written; an error in its place where its text cannot be."""
        why_not = _why_not_unicode(answer.text + answer.error)
        if why_not:
            return Answer(answer.key, error=f"the engine's text is not Unicode: {why_not}")
        return replace(answer, findings="") if _why_not_unicode(answer.findings) else answer

    def _flags(self, answer: Answer) -> tuple[str, ...]:
        if answer.error:
            return ()
        flags = flags_of(Answered(answer.text, answer.finish_reason, self.prompt, self.class_terms))
        lacks = self.schema is not None and not self.schema.accepts(answer.findings)
        return tuple(sorted((*flags, NO_FINDINGS))) if lacks else flags


def answers_of(
    runner: Runner,
    asks: dict[str, Ask],
    on_ready: Callable[[EngineFacts], None],
    check: Callable[[list[Answer], EngineFacts], None] | None,
    on_checked: Callable[[EngineFacts], None],
) -> Iterator[Answer]:
    """One answer per ask. The first `N_FIRST` wait for each other and for `check`, which may raise.

    `on_ready` hears of the first engine that is ready; `on_checked` is called once, before the first answer is given.
    """
    waiting: list[Answer] = []
    facts: EngineFacts | None = None
    is_checked = False
    for said in runner.describe(asks.values()):
        if isinstance(said, Answer):
            waiting.append(said)
        elif facts is None:
            facts = said
            on_ready(facts)
        if facts and (is_checked or len(waiting) >= min(N_FIRST, len(asks))):
            if not is_checked:
                if check and waiting:
                    check(waiting[:N_FIRST], facts)
                on_checked(facts)
                is_checked = True
            yield from waiting
            waiting = []
    if facts:  # asked to stop before there were `N_FIRST`
        if not is_checked:
            on_checked(facts)
        yield from waiting


def check_with(max_tokens: int, say: Callable[[str], None]) -> Callable[[list[Answer], EngineFacts], None]:
    """The preflight of `annotate.preflight`, for `answers_of`."""
    return lambda answers, facts: check_first_answers(answers, facts, max_tokens, say)


def _why_not_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.reason
    return ""


def _as_before(row: Description, before: Description) -> Description:
    """The row of an answer that was no better: the text before it, and the count of retries since."""
    return replace(
        before, image_id=row.image_id, attempt=row.attempt, retries=row.retries, described_at=row.described_at
    )
