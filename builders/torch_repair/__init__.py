"""Make torchvision import beside a torch that it was not built for; inert where the installed builds match."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builders.torch_repair import hook

__all__ = ["Mismatch", "child_environment", "diagnose", "repair"]

_CHILD_FOLDER = str(Path(__file__).resolve().parent / "child")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One installed package whose build does not fit the installed torch, and what `repair` does about it."""

    package: str
    version: str
    reason: str
    action: str
    is_repaired: bool


def repair() -> None:
    """Repair this process, before torchvision or transformers is imported. Does nothing where nothing mismatches."""
    if any(hook.mismatch(package) for package in hook.COMPANIONS):
        hook.install()


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to `environ` so that child processes are repaired from their first line; empty where all is well."""
    before = environ.get("PYTHONPATH", "")
    is_there = _CHILD_FOLDER in before.split(os.pathsep)
    if is_there or not any(hook.mismatch(package) for package in hook.COMPANIONS):
        return {}
    return {"PYTHONPATH": f"{_CHILD_FOLDER}{os.pathsep}{before}" if before else _CHILD_FOLDER}


def diagnose() -> list[Mismatch]:
    """Every mismatch among the installed packages, in a fixed order; empty on a healthy machine. Imports no torch."""
    found: list[Mismatch] = []
    for package in hook.COMPANIONS:
        if reason := hook.mismatch(package):
            if package == "torchvision":
                action, is_repaired = "operators declared on import", hook.is_installed()
            else:
                action, is_repaired = "hidden from find_spec", hook.is_hidden(package)
            found.append(Mismatch(package, hook.version_of(package), reason, action, is_repaired))
    return found
