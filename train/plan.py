"""`train --dry-run`: what a call would do, told without data and without models."""

from json import dumps

import typer

from builders.errors import choose
from train.config import TrainConfig
from train.device import device_of
from train.imbalance import IMBALANCE
from train.matrix import runs_of
from train.recipes import assumed


def tell_plan(config: TrainConfig, json: bool) -> None:
    """Print settings, assumptions and the number of runs. Raises `UserError` for a name that does not exist."""
    runs = runs_of(config)
    choose("imbalance", config.imbalance, list(IMBALANCE))
    device_of(config.device)
    settings = config.model_dump(mode="json")
    assumptions = assumed({**settings, "epochs": config.n_epochs})
    n_runs, n_controls = len(runs), sum(bool(each.control) for each in runs)
    if json:
        plan = {"n_runs": n_runs, "epochs_each": config.n_epochs, "assumptions": assumptions, "settings": settings}
        typer.echo(dumps(plan, indent=2, ensure_ascii=False))
        return
    for line in assumptions:
        typer.echo(f"- {line}")
    for name, value in settings.items():
        typer.echo(f"{name}: {value}")
    before = f" after {config.head_epochs} of the heads alone" if config.head_epochs else ""
    of_them = f", {n_controls} of them controls" if n_controls else ""
    typer.echo(f"{n_runs} runs of {config.n_epochs} epochs each{before}{of_them}; nothing was started")
