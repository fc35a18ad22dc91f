"""What a run of `annotate` would ask and cost, told before anything is loaded, started or written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from annotate.checkpoint import context_tokens, count_parameters
from annotate.config import AnnotateConfig
from annotate.engines.internvl import tile_args
from annotate.engines.records import Task
from annotate.measure import Measured, measure
from annotate.models import Model
from annotate.prompt_tokens import PromptTokens, UnknownTokensError, count_prompt_tokens
from annotate.prompts import Prompt
from annotate.provenance import fingerprint, identity
from annotate.publishable import publishable
from annotate.schemas import load_schema

GPU = "H100"
GPU_FLOP_PER_S = 989e12  # dense bf16, NVIDIA's data sheet
GPU_UTILISATION = 0.4  # assumed
ROW_BYTES = 300  # one row of RUN/parts without its text
BYTES_PER_TOKEN = 5  # of English

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread(Generic[T]):
    """The smallest, median and largest of some measured values."""

    smallest: T
    median: T
    largest: T


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. What nobody knows is None, and `unknown` or `parameters_by` says why.

    `sizes_px` are (width, height) of the upright images, ordered by area; `n_tiles` is told for InternVL only. Text and
    output tokens are per task: the description and, with a schema, the findings, each with a prompt of its own.
    The totals are scaled up from the `n_measured` images to all shards' files but the share that is unreadable, as if
    no two were copies, none described yet and none asked again. `context_tokens` is for a prompt and its answer.
    `flop` and `gpu_hours` are an estimate that stands on `assumption`; `parts_bytes` is an upper bound.
    """

    engine: str
    model_id: str
    model_revision: str
    architecture: str
    n_parameters: int | None
    parameters_by: str
    n_files: int
    n_measured: int
    n_unreadable: int
    sizes_px: Spread[tuple[int, int]] | None
    n_tiles: Spread[int] | None
    n_image_tokens: Spread[int] | None
    n_text_tokens: dict[Task, int] | None
    unknown: str
    max_output_tokens: dict[Task, int]
    total_prompt_tokens: int | None
    total_output_tokens: int
    context_tokens: int | None
    longest_prompt_tokens: int | None
    flop: float | None
    gpu_hours: float | None
    assumption: str
    parts_bytes: int
    warnings: list[str]
    fingerprint: str
    config: dict[str, Any]


def plan(config: AnnotateConfig, engine_name: str, model: Model, prompt: Prompt) -> Plan:
    """List the images, open the headers of some, count tokens with tokenizer and processor, and multiply.

    Reads no weights but the headers of their files, starts no process and writes nothing; of a model on the Hub it may
    download small files into the cache. Raises `UserError` where there is no image.
    """
    measured = measure(config.images, config.limit)
    n_measured = len(measured.sizes_px)
    n_usable = round(measured.n_files * n_measured / (n_measured + measured.n_unreadable))
    schema = load_schema(config.schema_name)
    texts: dict[Task, str] = {"description": prompt.text, **({"findings": schema.prompt} if schema else {})}
    n_out: dict[Task, int] = {"description": config.max_tokens, **({"findings": schema.max_tokens} if schema else {})}
    tokens, unknown = _tokens(config, engine_name, model, list(texts.values()), measured)
    n_text = dict(zip(texts, tokens.n_text_tokens, strict=True)) if tokens else None
    n_parameters, parameters_by = count_parameters(model)
    context = context_tokens(model, engine_name, config.engine_args)
    longest = total_in = flop = None
    total_out = n_usable * sum(n_out.values())
    warnings = _too_many_unreadable(measured, config.max_refused)
    if tokens and n_text:
        largest, mean = max(tokens.n_image_tokens), sum(tokens.n_image_tokens) / n_measured
        longest = max(n_text.values()) + largest
        total_in = round(n_usable * sum(n + mean for n in n_text.values()))
        flop = 2.0 * n_parameters * (total_in + total_out) if n_parameters is not None else None
        warnings += [line for task in texts for line in _too_long(context, task, n_text[task] + largest, n_out[task])]
    return Plan(
        engine=engine_name,
        model_id=model.id,
        model_revision=model.revision,
        architecture=model.architecture,
        n_parameters=n_parameters,
        parameters_by=parameters_by,
        n_files=measured.n_files,
        n_measured=n_measured,
        n_unreadable=measured.n_unreadable,
        sizes_px=_spread(sorted(measured.sizes_px, key=lambda size: (size[0] * size[1], size))),
        n_tiles=_spread(sorted(tokens.n_tiles)) if tokens else None,
        n_image_tokens=_spread(sorted(tokens.n_image_tokens)) if tokens else None,
        n_text_tokens=n_text,
        unknown=unknown,
        max_output_tokens=n_out,
        total_prompt_tokens=total_in,
        total_output_tokens=total_out,
        context_tokens=context,
        longest_prompt_tokens=longest,
        flop=flop,
        gpu_hours=flop / (GPU_FLOP_PER_S * GPU_UTILISATION) / 3600 if flop is not None else None,
        assumption=f"2 × parameters × tokens, on one {GPU} at {GPU_UTILISATION:.0%} of its 989 TFLOP/s (dense bf16)",
        parts_bytes=measured.n_files * (ROW_BYTES + BYTES_PER_TOKEN * sum(n_out.values())),
        warnings=warnings,
        fingerprint=fingerprint(identity(config, model, prompt, engine_name)),
        config={**config.model_dump(mode="json"), "engine_args": publishable(config.engine_args)},
    )


def render(plan: Plan) -> list[str]:
    """The plan as lines for a terminal, one fact each; warnings last, where they are seen."""
    return [
        f"engine: {plan.engine}",
        f"model: {plan.model_id}",
        f"revision: {plan.model_revision}",
        f"architecture: {plan.architecture}",
        f"parameters: {_known(plan.n_parameters)} ({plan.parameters_by})",
        f"files: {plan.n_files:,}",
        f"measured: {plan.n_measured:,} images by their headers; {plan.n_unreadable:,} files could not be opened",
        f"image size, px: {_range(plan.sizes_px, lambda size: f'{size[0]} × {size[1]}')}",
        *([f"tiles per image: {_range(plan.n_tiles)}"] if plan.n_tiles else []),
        f"image tokens per image: {_range(plan.n_image_tokens)}",
        *(
            f"text tokens per {task}: {n:,} (prompt and chat template)"
            for task, n in (plan.n_text_tokens or {}).items()
        ),
        *([f"tokens are unknown: {plan.unknown}"] if plan.unknown else []),
        *(f"output tokens per {task}: at most {n:,}" for task, n in plan.max_output_tokens.items()),
        f"longest prompt measured: {_known(plan.longest_prompt_tokens)} tokens",
        f"context: {_known(plan.context_tokens)} tokens for prompt and answer",
        *(["totals are of all shards, not of this one"] if plan.config["shard"] else []),
        f"prompt tokens in all, going by those measured: {_known(plan.total_prompt_tokens)}",
        f"output tokens in all: at most {plan.total_output_tokens:,}",
        f"compute, an estimate and no measurement: {_known(plan.flop, '.2g')} FLOP",
        f"time, an estimate and no measurement: {_known(plan.gpu_hours, '.2g')} GPU hours",
        f"the estimate assumes: {plan.assumption}",
        f"disk for parts: at most about {plan.parts_bytes / 1e6:,.2f} MB",
        f"fingerprint: {plan.fingerprint}",
        *(f"config.{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in plan.config.items()),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]


def _tokens(
    config: AnnotateConfig, engine_name: str, model: Model, texts: list[str], measured: Measured
) -> tuple[PromptTokens | None, str]:
    """The tokens of the measured images' prompts, or why they are unknown."""
    if not measured.sizes_px:
        return None, "no file could be opened as an image"
    given = config.engine_args.get("mm_processor_kwargs") if engine_name == "vllm" else None  # replaces the engine's
    processor_args: dict[str, Any] = given or tile_args(model.architecture, config.max_dynamic_patch) or {}
    try:
        return count_prompt_tokens(model, texts, measured.sizes_px, processor_args), ""
    except UnknownTokensError as error:
        return None, str(error)


def _too_long(context: int | None, task: Task, n_prompt: int, n_output: int) -> list[str]:
    if context is None or n_prompt + n_output <= context:
        return []
    if n_prompt >= context:
        trouble = "such images would be refused; fix: fewer tokens per image, or a model with a longer context"
    elif task == "description":
        trouble = f"long answers would be cut; fix: --max-tokens {context - n_prompt}, or fewer tokens per image"
    else:
        trouble = "long answers would be cut; fix: fewer tokens per image, or a model with a longer context"
    return [
        f"the context of {context:,} tokens is too short for the {task}: the longest prompt has {n_prompt:,} and its "
        f"answer up to {n_output:,}; {trouble}"
    ]


def _too_many_unreadable(measured: Measured, max_refused: float) -> list[str]:
    n_looked_at = len(measured.sizes_px) + measured.n_unreadable
    if measured.n_unreadable <= max_refused * n_looked_at:
        return []
    return [
        f"{measured.n_unreadable:,} of {n_looked_at:,} files looked at are no usable images, more than --max-refused "
        f"{max_refused:g} allows"
    ]


def _spread(ordered: list[T]) -> Spread[T] | None:
    return Spread(ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]) if ordered else None


def _range(spread: Spread[T] | None, show: Callable[[T], str] = lambda value: f"{value:,}") -> str:
    """`a to b, median c`, or the one value that all share."""
    if spread is None:
        return "unknown"
    if spread.smallest == spread.largest:
        return show(spread.median)
    return f"{show(spread.smallest)} to {show(spread.largest)}, median {show(spread.median)}"


def _known(value: float | None, form: str = ",") -> str:
    return "unknown" if value is None else format(value, form)
