"""What describes: a dict of engines, and the choice among them."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from annotate.engines.records import Answer, Engine, EngineConfig, EngineFacts, Feed, Request
from builders.errors import UserError, choose

ENGINES: dict[str, str] = {
    "openai": "annotate.engines.openai:OpenAIEngine",
    "scripted": "annotate.engines.scripted:ScriptedEngine",
    "transformers": "annotate.engines.transformers:TransformersEngine",
    "vllm": "annotate.engines.vllm:VllmEngine",
}
NEEDS = {"openai": ("openai",), "vllm": ("vllm", "torch"), "transformers": ("transformers", "torch"), "scripted": ()}
EXTRAS = {"openai": "openai", "vllm": "vllm", "transformers": "train"}

__all__ = ["ENGINES", "Answer", "Engine", "EngineConfig", "EngineFacts", "Feed", "Request", "choose_engine"]


def choose_engine(asked: str = "auto") -> tuple[str, str]:
    """The engine to run on this machine, and the reason in words.

    `auto` is vLLM where it is installed, else transformers. Raises `UserError` where neither is, or for another name.
    """
    if asked != "auto":
        choose("engine", asked, ["auto", *ENGINES])
        return asked, "asked for"
    if not _missing("vllm"):
        return "vllm", "vllm is installed"
    if not _missing("transformers"):
        return "transformers", "vllm is not installed; transformers is, and runs anywhere, more slowly"
    raise UserError(
        "no engine is installed: neither vllm nor transformers with torch can be imported",
        "pip install 'vl-dermnet[vllm]'   (NVIDIA GPU)   or   'vl-dermnet[cpu]'   or   'vl-dermnet[train]'",
    )


def load_engine(name: str, config: EngineConfig) -> Engine:
    """The engine NAME, built but not started. Raises `UserError` where it is not installed."""
    missing = _missing(name)
    if missing:
        raise UserError(
            f"engine '{name}' needs packages that are not installed: {', '.join(missing)}.",
            f"pip install 'vl-dermnet[{EXTRAS[name]}]'\n  or:  vl-dermnet annotate --engine auto   (any machine)",
        )
    module, _, cls = ENGINES[name].partition(":")
    engine: Any = getattr(import_module(module), cls)
    return engine(config)


def _missing(name: str) -> list[str]:
    return [package for package in NEEDS[name] if find_spec(package) is None]
