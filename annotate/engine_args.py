"""Engine arguments that annotate does not pass on: those that an option of its own says, and says in run.json."""

from typing import Any

from builders.errors import UserError

# What names the checkpoint or its code, or is counted with elsewhere: given behind annotate's back it would make the
# pinned commit, the fingerprint or the devices untrue.
_CHECKPOINT = "--model and --revision, which name weights, configuration, tokenizer and code together"
INSTEAD = {
    "code_revision": _CHECKPOINT,
    "data_parallel_size": "--data-parallel",
    "dtype": "--dtype",
    "hf_config_path": _CHECKPOINT,
    "max_tokens": "--max-tokens",
    "model": "--model",
    "revision": "--revision",
    "seed": "--seed",
    "temperature": "--temperature",
    "tensor_parallel_size": "--tensor-parallel",
    "tokenizer": _CHECKPOINT,
    "tokenizer_revision": _CHECKPOINT,
    "torch_dtype": "--dtype",
    "trust_remote_code": "--trust-remote-code",
    "use_safetensors": "a checkpoint in safetensors: other formats run code when they are read",
}


def check_engine_args(engine: str, args: dict[str, Any], tensor_parallel: int) -> None:
    """Raise `UserError` for an engine argument that has an option of its own, and for options of other engines."""
    for name in args:
        if name in INSTEAD:
            raise UserError(f"--engine-arg {name} is not passed on", f"use {INSTEAD[name]}")
    if "endpoint" in args and engine in ("transformers", "vllm"):
        raise UserError(f"--endpoint names a server, and --engine {engine} loads the model here", "leave one out")
    if tensor_parallel > 1 and engine == "openai":
        raise UserError(
            f"--tensor-parallel {tensor_parallel} is the server's to set, where it is started",
            f"vllm serve MODEL --tensor-parallel-size {tensor_parallel}",
        )
    if tensor_parallel > 1 and engine == "transformers":
        raise UserError(
            f"--tensor-parallel {tensor_parallel} is for vLLM; engine 'transformers' uses one GPU",
            "--engine vllm, or leave it out; --data-parallel puts an engine on each GPU",
        )
