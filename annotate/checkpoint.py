"""What a checkpoint's small files tell without its weights: how many parameters, how long a context."""

import json
import math
from pathlib import Path
from typing import Any

from annotate.models import Model
from builders.files import read_json
from builders.torch_repair import repair

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def read_config(model: Model) -> dict[str, Any]:
    """The checkpoint's config.json; empty where it cannot be had."""
    return _read_json(model, "config.json")


def count_parameters(model: Model) -> tuple[int | None, str]:
    """Parameters as they are stored, tied ones once, and what they were counted by; None and why where nobody knows.

    Reads the headers of the safetensors files that are on this disk, else the index of them. Never downloads weights.
    """
    if not model.location:
        return None, "the model is not on this machine"
    config, index = read_config(model), _read_json(model, INDEX)
    names = sorted(set(index.get("weight_map", {}).values())) or ["model.safetensors"]
    files = [file for name in names if (file := _on_this_disk(model, name))]
    packed = "; packed weights of a quantised checkpoint count as less" if "quantization_config" in config else ""
    metadata: dict[str, Any] = index.get("metadata") or {}
    if len(files) == len(names):
        try:
            return sum(_n_in_header(file) for file in files), f"safetensors headers{packed}"
        except (OSError, ValueError) as error:
            return None, f"a safetensors header cannot be read: {error}"
    if "total_parameters" in metadata:
        return int(metadata["total_parameters"]), f"{INDEX}{packed}"
    dtype = config.get("dtype") or config.get("torch_dtype")
    if "total_size" in metadata and dtype in _ELEMENT_BYTES:
        return int(metadata["total_size"]) // _ELEMENT_BYTES[dtype], f"total_size in {INDEX}, as {dtype}{packed}"
    return None, "no safetensors files of the model are on this disk"


def context_tokens(model: Model, engine_name: str, engine_args: dict[str, Any]) -> int | None:
    """Tokens that prompt and answer may have together: vLLM's `max_model_len` if given, else the checkpoint's own."""
    asked = engine_args.get("max_model_len") if engine_name == "vllm" else None
    if isinstance(asked, int) and asked > 0:
        return asked
    if not model.location:
        return None
    config = read_config(model)
    for part in (config.get("text_config"), config.get("llm_config"), config):
        if part and part.get("max_position_embeddings"):
            return int(part["max_position_embeddings"])
    return _context_by_default(model)


def _context_by_default(model: Model) -> int | None:
    """The default of the model's kind: some config.json, like Gemma 3's, hold only what differs from it."""
    try:
        repair()
        from transformers import AutoConfig

        loaded: Any = AutoConfig.from_pretrained(
            model.location, revision=model.hub_revision, trust_remote_code=model.trust_remote_code
        )
        found: int | None = getattr(loaded.get_text_config(), "max_position_embeddings", None)
    except (OSError, ValueError, ImportError):
        return None
    return found


def _n_in_header(file: Path) -> int:
    """Elements of all tensors of one safetensors file. Format: https://github.com/huggingface/safetensors#format"""
    with file.open("rb") as stream:
        n_bytes = int.from_bytes(stream.read(8), "little")
        if n_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is no safetensors file")
        header: dict[str, Any] = json.loads(stream.read(n_bytes))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _read_json(model: Model, name: str) -> dict[str, Any]:
    file = _on_this_disk(model, name) or _from_hub(model, name)
    return read_json(file) if file else {}


def _on_this_disk(model: Model, name: str) -> Path | None:
    """The file NAME in the model's folder, or in the Hub's cache."""
    file = Path(model.location) / name
    if model.hub_revision is not None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model.location, name, revision=model.hub_revision)
        if not isinstance(cached, str):
            return None
        file = Path(cached)
    return file if file.is_file() else None


def _from_hub(model: Model, name: str) -> Path | None:
    """The small file NAME, downloaded; None where the Hub has none or does not answer."""
    if model.hub_revision is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(model.location, name, revision=model.hub_revision))
    except (EntryNotFoundError, HfHubHTTPError, OSError):
        return None
