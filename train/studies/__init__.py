"""The figures under results/ that come from real data: one script each, and the page that it writes."""

import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import typer

from builders.errors import UserError
from builders.files import read_json, with_ending, write_atomic, write_json
from train.table import experiment_table

PACKAGES = ("torch", "transformers", "numpy", "pyarrow")


def run_study(main: Callable[..., None]) -> None:
    """Run a study's command line; what a user can mend is told without a traceback."""
    try:
        typer.run(main)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def write_results(out: Path, title: str, said: list[str], experiments: dict[str, Path]) -> dict[str, Any]:
    """Write OUT.json and OUT.md: each experiment's table, the command, machine and versions."""
    tables = {name: experiment_table(folder) for name, folder in experiments.items()}
    command = " ".join(["python", "-m", _module(), *(_without_place(each) for each in sys.argv[1:])])
    machine: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": platform.machine(),
        "gpu": _gpu(experiments),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    now = datetime.now(UTC).date().isoformat()
    validation = {name: on_validation(folder) for name, folder in experiments.items()}
    result = {
        "title": title,
        "command": command,
        "at": now,
        "machine": machine,
        "tables": {name: table.as_json() for name, table in tables.items()},
        "validation": validation,
    }
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    on = f"{machine['cores']} cores, {machine['gpu'] or 'no GPU'}"
    lines = [f"# {title}", "", f"`{command}`", "", f"{now}; {on}; {versions}.", "", *said]
    for name, table in tables.items():
        lines += [
            "",
            f"## {name}",
            "",
            table.as_markdown().rstrip(),
            "",
            *_validation_lines(validation[name]),
        ]
    write_json(with_ending(out, ".json"), result)
    write_atomic(with_ending(out, ".md"), lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return result


def on_validation(folder: Path) -> list[dict[str, Any]]:
    """Of each model and protocol the epochs that validation chose, seed by seed, and their macro-F1 there."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, record in read_json(folder / "results.json")["runs"].items():
        model, protocol, _ = name.rsplit("-", 2)
        if "best" in record:  # a control that is computed from another run has no epochs
            found.setdefault((model, protocol), []).append(record["best"])
    return [
        {
            "model": model,
            "protocol": protocol,
            "epochs": [best["epoch"] for best in bests],
            "macro_f1": [best["validation_macro_f1"] for best in bests],
        }
        for (model, protocol), bests in found.items()
    ]


def _validation_lines(rows: list[dict[str, Any]]) -> list[str]:
    """For the page: models without their controls."""
    return [
        "What validation chose, seed by seed:",
        "",
        "| model | protocol | epoch | validation macro-F1 |",
        "| :--- | :--- | :--- | :--- |",
        *(
            f"| {row['model']} | {row['protocol']} | {', '.join(map(str, row['epochs']))}"
            f" | {', '.join(f'{value:.3f}' for value in row['macro_f1'])} |"
            for row in rows
            if "+" not in row["model"]
        ),
    ]


def _gpu(experiments: dict[str, Path]) -> str | None:
    """The GPU of this machine, where an experiment was not told to leave it alone."""
    devices = {read_json(folder / "config.json")["device"] for folder in experiments.values()}
    return torch.cuda.get_device_name() if devices != {"cpu"} and torch.cuda.is_available() else None


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem


def _without_place(argument: str) -> str:
    return Path(argument).name if Path(argument).is_absolute() or argument.startswith("..") else argument
