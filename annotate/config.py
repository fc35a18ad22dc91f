"""Every setting of one `annotate` run, parsed once, at the border."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from builders.errors import UserError

DEFAULT_MODEL = "OpenGVLab/InternVL3-8B-hf"
DEFAULT_RETRY_FLAGS = ("empty", "refusal", "repetition")  # what another draw of the sampler can mend


class AnnotateConfig(BaseModel):
    """What to describe, with which model, how, and where the answers go.

    `engine` is a name in `annotate.engines.ENGINES` or `auto`. `model` is a Hub id, a folder, or `tiny-internvl`.
    `max_dynamic_patch` caps InternVL's tiles per image (256 tokens each; None leaves it to the checkpoint).
    `max_in_flight` is how many images an engine works on at once; None leaves it to the engine. `limit` describes
    only that many images, spread over classes: those with the smallest `image_id`. `max_refused` is the share of
    images, 0 to 1, that may be refused or failed before the command ends with 3. `n_workers` decoding processes per
    engine. `data_parallel` engines run beside each other, each on `tensor_parallel` GPUs; an engine that holds an image
    for longer than `timeout_s` is started again. An answer with one of `retry_flags` is asked for again up to `retries`
    times, at a rising temperature. `shard` is `I/N`; `schema_name` adds findings as JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    images: str
    out: Path
    model: str = DEFAULT_MODEL
    revision: str | None = None
    trust_remote_code: bool = False
    engine: str = "auto"
    engine_args: dict[str, Any] = Field(default_factory=dict)
    prompt: str = "doctor"
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    seed: int = 0
    dtype: str = "auto"
    max_dynamic_patch: int | None = Field(default=None, ge=1)
    max_in_flight: int | None = Field(default=None, ge=1)
    n_workers: int | None = Field(default=None, ge=0)
    limit: int | None = Field(default=None, ge=1)
    index: Path | None = None
    max_refused: float = Field(default=0.02, ge=0.0, le=1.0)
    runner: str = "local"
    data_parallel: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    timeout_s: float = Field(default=1800.0, gt=0)
    retries: int = Field(default=2, ge=0)
    retry_flags: tuple[str, ...] = DEFAULT_RETRY_FLAGS
    schema_name: str | None = None
    shard: str | None = None
    preflight: bool = True
    part_rows: int = Field(default=256, ge=1)
    part_seconds: float = Field(default=5.0, gt=0)

    @field_validator("temperature", "timeout_s", "max_refused", mode="before")
    @classmethod
    def _is_finite(cls, value: Any, field: ValidationInfo) -> Any:
        """The command line only compares with its limits, which nan and inf get past."""
        if isinstance(value, float) and not math.isfinite(value):
            option = str(field.field_name).removesuffix("_s").replace("_", "-")
            raise UserError(f"--{option} {value} is not a finite number", "vl-dermnet annotate --help")
        return value


def parse_engine_args(pairs: list[str]) -> dict[str, Any]:
    """`key=value` words to a dict; a value that is JSON (`8`, `true`, `{"a": 1}`) is read as JSON, else as text."""
    import json

    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--engine-arg '{pair}' is not key=value", "--engine-arg max_num_seqs=512")
        try:
            parsed[key.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key.replace("-", "_")] = value
    return parsed
