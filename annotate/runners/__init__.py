"""Who feeds the engines: a dict of runners. What describes is another axis, `annotate.engines`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from annotate.runners.engine_process import Order
from annotate.runners.records import Report, Restart, Runner, Stop
from builders.errors import UserError, choose

RUNNERS: dict[str, str] = {
    "local": "annotate.runners.local:LocalRunner",
    "ray": "annotate.runners.ray:RayRunner",
}

__all__ = ["RUNNERS", "Order", "Report", "Restart", "Runner", "Settings", "Stop", "load_runner"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How engines are run: how many, on how many GPUs each, how long one may hold an image, where they print."""

    n_engines: int
    gpus_per_engine: int
    timeout_s: float
    logs: Path


def load_runner(name: str, order: Order, settings: Settings, say: Callable[[str], None], stop: Stop) -> Runner:
    """The runner NAME, nothing started yet. Raises `UserError` where it is unknown or not installed."""
    choose("runner", name, dict(RUNNERS))
    if name == "ray" and find_spec("ray") is None:
        raise UserError("runner 'ray' needs packages that are not installed: ray.", "pip install 'vl-dermnet[ray]'")
    module, _, cls = RUNNERS[name].partition(":")
    runner: Any = getattr(import_module(module), cls)
    return runner(order, settings, say, stop)
