"""One run of `annotate`, top to bottom: index, resume, start the engine, stream, write parts, summarise."""

import fcntl
import queue
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO

from annotate.config import AnnotateConfig
from annotate.engines import Answer, Engine, EngineConfig, Feed, choose_engine, load_engine
from annotate.flags import Answered, class_terms, flags_of
from annotate.models import Model, resolve_model
from annotate.parts import PartWriter
from annotate.pending import Unusable, group_by_bytes, requests, without_done
from annotate.progress import Progress
from annotate.prompts import Prompt, load_prompt
from annotate.provenance import check_same_run, identity, new_run
from annotate.rows import refused_rows, rows_of
from annotate.summary import AnnotateSummary, Session, summarise
from builders.errors import UserError, choose
from builders.files import write_json
from builders.index import default_workers, iter_index, no_image_error, read_index, stale_paths, write_index
from builders.run_folder import one_per_image, part_files, read_part
from builders.schema import Description, IndexRow, image_id_of
from builders.sources import open_source

DTYPES = ("auto", "bfloat16", "float16", "float32")
AHEAD = 64  # decoded images that wait for the engine: at 720 x 480 px 1 MB each


def run(config: AnnotateConfig, command: str = "", progress: Progress | None = None) -> AnnotateSummary:
    """Describe every image of `config.images` that has no description in `config.out` yet.

    Safe to kill at any moment and to start again: finished parts are kept, and only what was under way is asked again.
    Raises `UserError` for settings that differ from the run's, a folder in use, a missing model or engine.
    """
    progress = progress or Progress(is_silent=True)
    with _alone(config.out):
        choose("dtype", config.dtype, list(DTYPES))
        engine_name, why = choose_engine(config.engine)
        progress.say(f"engine: {engine_name} ({why})")
        model, prompt = _model(config, engine_name), load_prompt(config.prompt)
        who = identity(config, model, prompt, engine_name)
        run_json, summary_json = config.out / "run.json", config.out / "summary.json"
        if run_json.exists():
            check_same_run(config.out, who)
        engine = load_engine(engine_name, _engine_config(config, model, prompt))

        done = one_per_image(row for part in part_files(config.out) for row in read_part(part))
        if not run_json.exists() and any(row.status != "refused" for row in done.values()):
            raise UserError(
                f"{config.out} holds descriptions but no run.json, so nobody knows what made them",
                "put run.json back, or use another --out",
            )
        index = _index(config, done, progress)
        groups = group_by_bytes(index)
        pending = without_done(groups, done)
        progress.say(f"{len(index):,} files, {len(groups):,} different images, {len(pending):,} of them to describe")
        summary_json.unlink(missing_ok=True)  # written last: while it is absent, the run is unfinished

        session, terms = Session(), class_terms({row.label for row in index})
        with PartWriter(config.out, config.part_rows, config.part_seconds) as writer:
            writer.add(refused_rows(index, done))
            if pending or not run_json.exists():
                with _decoding(config, pending) as (feed, unusable):  # while the engine starts
                    facts = engine.start()
                    session.begin()
                    if not run_json.exists():
                        write_json(run_json, new_run(who, prompt, facts, config, command))
                    answers = _answers(engine, feed, unusable, set(pending))
                    for answer in progress.track(answers, total=len(pending)):
                        flags = _flags(answer, prompt, terms)
                        writer.add(rows_of(answer, pending[answer.key], done, facts.engine_id, flags))
                        session.count(answer)
                    session.end()
                    engine.close()
        rows = one_per_image(row for part in part_files(config.out) for row in read_part(part))
        summary = summarise(index, rows, session)
        write_json(summary_json, asdict(summary))
        return summary


@contextmanager
def _decoding(
    config: AnnotateConfig, pending: dict[str, list[IndexRow]]
) -> Generator[tuple[Feed, "queue.SimpleQueue[Unusable]"]]:
    """Images decoded ahead in processes, half as many as cores, and those that turned out unusable."""
    unusable: queue.SimpleQueue[Unusable] = queue.SimpleQueue()
    n_workers = (default_workers(len(pending)) + 1) // 2 if config.n_workers is None else config.n_workers
    feed = Feed(requests(config.images, pending, n_workers, unusable.put), ahead=AHEAD)
    try:
        yield feed, unusable
    finally:
        feed.close()


def _answers(
    engine: Engine, feed: Feed, unusable: "queue.SimpleQueue[Unusable]", waiting: set[str]
) -> Iterator[Answer]:
    """Exactly one answer per key in `waiting`, in the order in which they come; unusable images are answered here."""
    for answer in chain(engine.describe(feed), [None]):
        while not unusable.empty():
            found = unusable.get()
            waiting.discard(found.key)
            yield Answer(found.key, error=found.reason)
        if answer is not None and answer.key in waiting:
            waiting.discard(answer.key)
            yield answer
    for key in sorted(waiting):
        yield Answer(key, error="the engine gave no answer")


def _index(config: AnnotateConfig, done: dict[str, Description], progress: Progress) -> list[IndexRow]:
    """The index of this run: the one given, or the one in the run folder brought up to date with the source."""
    index_file = config.out / "index.parquet"
    known = read_index(config.index or index_file) if config.index or index_file.exists() else []
    with open_source(config.images) as source:
        paths = list(source.paths())
        if config.limit is not None:
            paths = sorted(sorted(paths, key=image_id_of)[: config.limit])
        failed = {image_id for image_id, row in done.items() if row.status == "failed"}
        made_at_ns = (config.index or index_file).stat().st_mtime_ns if known else 0
        stale = stale_paths(source, paths, known, made_at_ns, suspects=failed)
    fresh = {row.image_id: row for row in known}
    n_workers = default_workers(len(stale)) if config.n_workers is None else config.n_workers
    for row in progress.track(iter_index(config.images, stale, n_workers), total=len(stale), what="checking"):
        fresh[row.image_id] = row
    index = [fresh[image_id_of(path)] for path in paths]
    if not index:
        raise no_image_error(config.images)
    write_index(index_file, index)
    return index


def _flags(answer: Answer, prompt: Prompt, terms: frozenset[str]) -> tuple[str, ...]:
    return () if answer.error else flags_of(Answered(answer.text, answer.finish_reason, prompt.text, terms))


def _model(config: AnnotateConfig, engine_name: str) -> Model:
    if engine_name == "scripted":
        return Model(id="scripted", location="", revision="none", architecture="none")
    if engine_name == "openai":  # the server has loaded it; which revision, it does not say
        return Model(id=config.model, location="", revision=config.revision or "as served", architecture="as served")
    return resolve_model(config.model, config.revision, config.trust_remote_code)


def _engine_config(config: AnnotateConfig, model: Model, prompt: Prompt) -> EngineConfig:
    return EngineConfig(
        model=model,
        prompt=prompt.text,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        seed=config.seed,
        dtype=config.dtype,
        max_dynamic_patch=config.max_dynamic_patch,
        max_in_flight=config.max_in_flight,
        engine_args=config.engine_args,
    )


@contextmanager
def _alone(run_folder: Path) -> Generator[None]:
    """Hold the run folder for this process; the lock goes when the process goes, however it dies."""
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        lock = (run_folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {run_folder}: {error.strerror}", "choose another --out") from error
    with lock:
        try:
            _lock(lock)
        except BlockingIOError as error:
            raise UserError(
                f"{run_folder} is in use by another annotate process", "wait for it, or use another --out"
            ) from error
        yield


def _lock(file: IO[str]) -> None:
    """Take the lock; wait a moment, because `status` holds it for an instant to see whether anybody does."""
    for _ in range(5):
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
