"""What a run is: the fingerprint of everything that changes its text, and run.json, written before the first row."""

import hashlib
import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from annotate.asks import RAMP
from annotate.config import AnnotateConfig
from annotate.engines import EngineFacts
from annotate.models import Model
from annotate.prompts import Prompt
from annotate.publishable import publishable
from annotate.schemas import load_schema
from builders.errors import UserError
from builders.run_folder import read_run_json
from builders.schema import SCHEMA_VERSION

NOT_IN_TEXT = (
    "endpoint",
    "timeout_s",
    "max_num_seqs",
    "gpu_memory_utilization",
    "max_num_batched_tokens",
    "tensor_parallel_size",
)
# What `new_run` adds to an identity, and the prompt's name.
NOT_IN_IDENTITY = (
    "prompt.name",
    "prompt.text",
    "prompt.rendered",
    "schema.prompt",
    "schema.json_schema",
    "engine.id",
    "engine.resolved_dtype",
    "engine.versions",
)


def identity(config: AnnotateConfig, model: Model, prompt: Prompt, engine: str) -> dict[str, Any]:
    """Everything that changes the text of a description, and nothing else: no batch size, no machine, no paths."""
    schema = load_schema(config.schema_name)
    return {
        "model": {"id": model.id, "revision": model.revision, "architecture": model.architecture},
        "prompt": {"name": prompt.name, "sha256": prompt.sha256},
        "schema": {"name": schema.name, "sha256": schema.sha256} if schema else None,
        "sampling": {
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
            "retries": config.retries,
            "retry_flags": sorted(config.retry_flags),
            "retry_step": RAMP,
        },
        "preprocessing": {"max_dynamic_patch": config.max_dynamic_patch},
        "engine": {
            "kind": engine,
            "dtype": config.dtype,
            "args": publishable({k: value for k, value in sorted(config.engine_args.items()) if k not in NOT_IN_TEXT}),
        },
    }


def fingerprint(identity: dict[str, Any]) -> str:
    """Hex sha256 of an identity's canonical JSON. The prompt's name does not count, its text does."""
    canonical = json.loads(json.dumps(identity))
    del canonical["prompt"]["name"]
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def new_run(
    who: dict[str, Any], prompt: Prompt, facts: EngineFacts, config: AnnotateConfig, command: str
) -> dict[str, Any]:
    """The content of run.json for a run that starts now: enough to ask the same again without this program."""
    schema = load_schema(config.schema_name)
    return {
        "schema_version": SCHEMA_VERSION,
        "set_name": set_name(who["model"]["id"], prompt.name),
        "fingerprint": fingerprint(who),
        **who,
        "prompt": {
            **who["prompt"],
            "text": prompt.text,
            "rendered": facts.rendered_prompt,
            "rendered_sha256": hashlib.sha256(facts.rendered_prompt.encode()).hexdigest(),
        },
        "schema": schema and {**who["schema"], "prompt": schema.prompt, "json_schema": schema.json_schema},
        "engine": {**who["engine"], "id": facts.engine_id, "resolved_dtype": facts.dtype, "versions": versions(facts)},
        "machine": machine(),
        "config": publishable(config.model_dump(mode="json", exclude={"images", "out", "index", "model", "prompt"})),
        "command": command,
        "created_at": utc_now(),
    }


def check_same_run(run_folder: Path, who: dict[str, Any]) -> None:
    """Refuse to continue a run with other settings: two kinds of text must not share one set.

    Raises `UserError` that lists each setting with its old and new value.
    """
    old = read_run_json(run_folder)
    if old["fingerprint"] == fingerprint(who):
        return
    before, now = _flat({key: old.get(key) for key in who}), _flat(who)
    changed = [
        f"  {key}: {before.get(key)} -> {now.get(key)}"
        for key in {**before, **now}  # both: a setting that was left out stands in the old ones alone
        if before.get(key) != now.get(key) and not key.startswith(NOT_IN_IDENTITY)
    ]
    raise UserError(
        f"{run_folder} was made with other settings; its texts and new ones would not be one set:\n"
        + "\n".join(changed),
        "use another --out, or the old settings",
    )


def set_name(model_id: str, prompt_name: str) -> str:
    """The name of a description set: model and prompt, lower case, e.g. `internvl3-8b-hf-doctor`."""
    name = f"{model_id.rpartition('/')[2]}-{prompt_name}".lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def versions(facts: EngineFacts) -> dict[str, str]:
    """The engine's libraries and those that decode and write."""
    ours = {name: version(name) for name in ("vl-dermnet", "pillow", "pyarrow")}
    return {**facts.versions, **ours, "python": platform.python_version()}


def machine() -> dict[str, Any]:
    """Processor, memory and GPUs; no host name, no user, no path."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "n_cores": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "gpus": _gpus(),
    }


def _gpus() -> list[str]:
    import sys

    torch: Any = sys.modules.get("torch")  # loaded by the engine, or there is no GPU in use
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def utc_now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`, for the keys of an identity."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat
