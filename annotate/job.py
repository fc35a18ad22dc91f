"""One run of `annotate`, top to bottom: index, resume, start the engines, stream, write parts, summarise."""

from typing import Any

from annotate.asks import Asking
from annotate.config import AnnotateConfig
from annotate.describe import Describer, answers_of, check_with
from annotate.dry_run import Plan, plan
from annotate.engine_args import check_engine_args
from annotate.engines import EngineConfig, EngineFacts, choose_engine, load_engine
from annotate.flags import FLAGS
from annotate.images import group_by_bytes, index_of
from annotate.models import Model, resolve_model
from annotate.parts import PartWriter
from annotate.progress import Progress
from annotate.prompts import Prompt, load_prompt
from annotate.provenance import check_same_run, identity, new_run
from annotate.rows import refused_rows, seen_of
from annotate.run_lock import alone, in_turn
from annotate.runners import Order, Runner, Settings, Stop, load_runner
from annotate.runners.devices import visible_gpus
from annotate.schemas import load_schema
from annotate.seen import Retry, Seen, inherited_rows, read_seen, texts_of
from annotate.sessions import SessionLog, read_sessions
from annotate.shard import Shard, parse_shard
from annotate.summary import AnnotateSummary, publishable_summary, summarise
from builders.class_terms import class_terms
from builders.errors import UserError, choose
from builders.files import write_json
from builders.index import n_cores
from builders.schema import IndexRow
from builders.sources import pinned

DTYPES = ("auto", "bfloat16", "float16", "float32")


def run(
    config: AnnotateConfig, command: str = "", progress: Progress | None = None, stop: Stop | None = None
) -> AnnotateSummary:
    """Describe every image of `config.images` that has no description in `config.out` yet.

    Safe to kill at any moment and to start again: finished parts are kept, and only what was under way is asked again.
    With `stop` somebody can end it in between: it raises `KeyboardInterrupt` when what was in the engines is written.
    Raises `UserError` for settings that differ from the run's, a folder in use, a missing model or engine.
    """
    progress, stop, shard = progress or Progress(is_silent=True), stop or Stop(), parse_shard(config.shard)
    # A Hub dataset at one commit, for all processes.
    config = config.model_copy(update={"images": pinned(config.images)})
    with alone(config.out, shard):
        order, who, prompt = _order(config, progress)
        runner = load_runner(config.runner, order, _settings(config), progress.say, stop)
        run_json, summary_json = config.out / "run.json", config.out / "summary.json"
        if run_json.exists():
            check_same_run(config.out, who)
        seen = read_seen(config.out)
        if not run_json.exists() and any(row.status != "refused" for row in seen.values()):
            raise UserError(
                f"{config.out} holds descriptions but no run.json, so nobody knows what made them",
                "put run.json back, or use another --out",
            )
        with in_turn(config.out, "index"):
            index = index_of(config, seen, progress)
        describer = _describer(config, order, prompt, index, seen, shard)
        inherited = inherited_rows(config.out, describer.groups, seen)
        seen.update((row.image_id, seen_of(row)) for row in inherited)
        n_to_do = len(describer.to_ask())
        n_images = len(group_by_bytes(index))
        share = f" in {shard}" if shard else ""
        progress.say(f"{len(index):,} files, {n_images:,} different images, {n_to_do:,} of them to describe{share}")
        summary_json.unlink(missing_ok=True)  # written last: while it is absent, the run is unfinished

        with PartWriter(config.out, config.part_rows, config.part_seconds, shard) as writer:
            writer.add(inherited)
            writer.add(refused_rows([row for row in index if shard is None or shard.has(row.image_sha256)], seen))
            if n_to_do or not run_json.exists():
                log = SessionLog(config.out, shard, config.data_parallel, _n_gpus(config), n_to_do)
                try:
                    _describe(config, describer, runner, writer, log, progress, (who, prompt, command))
                    runner.close()
                finally:
                    runner.kill()
                    log.write(runner.report)
        if stop.is_requested:
            progress.say(f"stopped with {n_to_do - len(describer.to_ask()):,} of {n_to_do:,} images described")
            raise KeyboardInterrupt
        return _finish(config, index, shard, n_to_do)


def plan_of(config: AnnotateConfig) -> Plan:
    """What `run` would do, told without loading, starting or writing anything."""
    order, _, prompt = _order(config, Progress(is_silent=True))
    return plan(config, order.engine, order.config.model, prompt)


def _describe(
    config: AnnotateConfig,
    describer: Describer,
    runner: Runner,
    writer: PartWriter,
    log: SessionLog,
    progress: Progress,
    provenance: tuple[dict[str, Any], Prompt, str],
) -> None:
    """Ask until nothing is left to ask: a pass over all, then one over what was flagged, as often as `--retries`."""
    is_new = not any(row.status == "ok" for row in describer.seen.values())
    check = check_with(config.max_tokens, progress.say) if config.preflight and is_new else None
    engine_id = ""

    def on_ready(facts: EngineFacts) -> None:
        nonlocal engine_id
        if not engine_id:
            log.engine_is_ready()
        engine_id = facts.engine_id

    def on_checked(facts: EngineFacts) -> None:
        if is_first:  # not before the first look: settings that it found wanting can be mended on the same folder
            _write_run_json(config, facts, *provenance)

    what, is_first = "describing", True
    runner.stop.is_streaming = True
    while ((asks := describer.to_ask()) or is_first) and not runner.stop.is_requested:
        answers = answers_of(runner, asks, on_ready, check, on_checked)
        for answer in progress.track(answers, total=len(asks), what=what):
            writer.add(describer.rows(answer, asks[answer.key], engine_id))
            log.count(answer, asks[answer.key].retry > 0, runner.report)
            if forecast := log.forecast():
                progress.say(forecast)
        what, check, is_first = "asking again", None, False
    runner.stop.is_streaming = False
    log.end()


def _write_run_json(
    config: AnnotateConfig, facts: EngineFacts, who: dict[str, Any], prompt: Prompt, command: str
) -> None:
    """run.json, once: of several shards that begin together the first writes it, and the others must agree with it."""
    with in_turn(config.out, "run-json"):
        if (config.out / "run.json").exists():
            check_same_run(config.out, who)
        else:
            write_json(config.out / "run.json", new_run(who, prompt, facts, config, command))


def _order(config: AnnotateConfig, progress: Progress) -> tuple[Order, dict[str, Any], Prompt]:
    """What to run, checked before anything is started, and its identity."""
    choose("dtype", config.dtype, list(DTYPES))
    for flag in config.retry_flags:
        choose("flag", flag, dict(FLAGS))
    engine_name, why = choose_engine(config.engine)
    check_engine_args(engine_name, config.engine_args, config.tensor_parallel)
    progress.say(f"engine: {engine_name} ({why})")
    model, prompt = _model(config, engine_name), load_prompt(config.prompt)
    schema = load_schema(config.schema_name)
    engine_args = dict(config.engine_args)
    if config.tensor_parallel > 1:
        engine_args["tensor_parallel_size"] = config.tensor_parallel
    engine_config = EngineConfig(
        model=model,
        prompt=prompt.text,
        max_tokens=config.max_tokens,
        dtype=config.dtype,
        max_dynamic_patch=config.max_dynamic_patch,
        max_in_flight=config.max_in_flight,
        schema=schema,
        engine_args=engine_args,
    )
    load_engine(engine_name, engine_config)  # its complaints come before the photographs are read
    asking = Asking(
        images=config.images,
        temperature=config.temperature,
        seed=config.seed,
        tasks=("description", "findings") if schema else ("description",),
    )
    n_workers = max(1, (n_cores() + 1) // 2 // config.data_parallel) if config.n_workers is None else config.n_workers
    return Order(engine_name, engine_config, asking, n_workers), identity(config, model, prompt, engine_name), prompt


def _n_gpus(config: AnnotateConfig) -> int:
    return config.data_parallel * config.tensor_parallel if visible_gpus() and config.engine != "openai" else 0


def _settings(config: AnnotateConfig) -> Settings:
    return Settings(config.data_parallel, config.tensor_parallel, config.timeout_s, config.out / "logs")


def _describer(
    config: AnnotateConfig,
    order: Order,
    prompt: Prompt,
    index: list[IndexRow],
    seen: dict[str, Seen],
    shard: Shard | None,
) -> Describer:
    retry = Retry(frozenset(config.retry_flags), config.retries)
    groups = {key: rows for key, rows in group_by_bytes(index).items() if shard is None or shard.has(key)}
    again = {row.image_sha256 for row in seen.values() if row.status == "ok" and retry.wants(row.flags, row.retries)}
    return Describer(
        groups=groups,
        seen=seen,
        kept=texts_of(config.out, again),
        retry=retry,
        asking=order.asking,
        prompt=prompt.text,
        class_terms=class_terms({row.label for row in index}),
        schema=order.config.schema,
    )


def _finish(config: AnnotateConfig, index: list[IndexRow], shard: Shard | None, n_described: int) -> AnnotateSummary:
    """The summary of what is ours; whoever finds every image done writes that of the whole run."""
    seen, sessions, retry_flags = read_seen(config.out), read_sessions(config.out), frozenset(config.retry_flags)
    if all(row.image_id in seen for row in index):
        whole = summarise(index, seen, sessions, retry_flags, n_described)
        write_json(config.out / "summary.json", publishable_summary(whole))
    return summarise(index, seen, sessions, retry_flags, n_described, shard)


def _model(config: AnnotateConfig, engine_name: str) -> Model:
    if engine_name == "scripted":
        return Model(id="scripted", location="", revision="none", architecture="none")
    if engine_name == "openai":  # the server has loaded it; which revision, it does not say
        return Model(id=config.model, location="", revision=config.revision or "as served", architecture="as served")
    return resolve_model(config.model, config.revision, config.trust_remote_code)
