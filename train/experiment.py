"""An experiment: a matrix of models, protocols and seeds, each trained, tested once and written; resumable."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console

from builders.errors import UserError, choose
from builders.files import read_json, write_json, write_table
from train.checkpoint import FILE_NAME, MAY_CHANGE, MAY_COME
from train.config import EMAP, Protocol, TrainConfig
from train.controls.emap import emap_logits, reference_rows
from train.data import Examples, Split, load_examples, split_of
from train.device import device_of, threads_for
from train.distances import lacks_distances, write_distances
from train.evaluate import logits_table
from train.heap import keep_freed_memory
from train.imbalance import IMBALANCE
from train.jobs import train_at_once
from train.matrix import Run, emap_runs, model_folder_of, predictions_of, record_of, records, runs_of
from train.model import load_fusion_model
from train.model_card import refresh_cards
from train.one_run import train_one
from train.parts import Parts, load_parts
from train.processes import Processes, joined_processes
from train.progress import progress_bar, say
from train.recipes import assumed
from train.report.write import write_report
from train.table import experiment_table


@dataclass(frozen=True, slots=True)
class Experiment:
    """What `run` did: the experiment's folder, the runs in it that were trained now, and those found finished."""

    folder: Path
    trained: tuple[str, ...]
    skipped: tuple[str, ...]
    is_first: bool = True  # of several processes, the one that writes and speaks


def run(config: TrainConfig) -> Experiment:
    """Train every (model, protocol, seed) that the experiment folder lacks; write `results.json` and `report.html`.

    Progress goes to stderr. A run is finished when its predictions file exists, which is written last; so an
    interrupted experiment is continued by the same call, and the run that was interrupted from its checkpoint. Below
    torchrun, its processes share every batch. Raises `UserError` where the folder holds an experiment with other
    settings or on another dataset.
    """
    with joined_processes() as processes:
        return _run(config, processes)


def _run(config: TrainConfig, processes: Processes) -> Experiment:
    console = Console(stderr=True, quiet=not processes.is_first)
    if config.n_jobs > 1 and processes.n > 1:
        raise UserError("torchrun's processes share every run, and --jobs would share the runs out", "leave one out")
    datasets.disable_progress_bars()  # ours are below
    runs = runs_of(config)
    choose("imbalance", config.imbalance, list(IMBALANCE))
    with processes.first_alone():
        examples = load_examples(config)
        if processes.is_first:
            _write_config(config, examples)
    pending = processes.told_by_first([each for each in runs if not predictions_of(config, each).is_file()])
    skipped = [each.name for each in runs if each not in pending]
    for name in sorted({each.model for each in runs if each.control} - set(config.models)):
        if not list((config.out / "predictions").glob(f"{name}-*")):
            say(console, f"controls of {name} are held against {name}, which is not trained yet: --model {name}")
    splits: dict[Protocol, Split] = {protocol: split_of(examples, protocol) for protocol in config.protocols}
    _tell_data(console, examples, splits)
    if skipped:
        say(console, f"{len(skipped)} of {len(runs)} runs are finished already and are skipped")

    device = device_of(config.device)
    keep_freed_memory(device)
    with_distances = processes.told_by_first(
        lacks_distances(config, examples)
    )  # also those of an earlier program's runs
    if pending or with_distances:
        needed = {each.model for each in pending} | (set(config.models) if with_distances else set())
        with processes.first_alone():  # fills the cache
            parts = load_parts(config, examples, needed, device, console)
            if processes.is_first:
                _write_backbones(config, parts)
                write_distances(config, examples, splits, parts, console)
        with progress_bar(console, "train", len(pending) * config.n_epochs) as advance:
            if min(config.n_jobs, len(pending)) > 1:
                train_at_once(config, examples, pending, parts, device, advance, console)
            else:
                for each in pending:
                    split = splits[each.protocol]
                    train_one(config, examples, split, each, parts, device, advance, console, processes)
    trained = [each.name for each in pending]
    if processes.is_first:
        for protocol in config.protocols if EMAP in config.controls else ():
            asked = emap_runs(config, protocol)
            unasked = [each for each in asked if not predictions_of(config, each).is_file()]
            _project(config, examples, splits[protocol], unasked, device, console)
            trained += [each.name for each in unasked]
            skipped += [each.name for each in asked if each not in unasked]
        table = experiment_table(config.out).as_json()
        write_json(
            config.out / "results.json",
            {
                "fingerprint": examples.fingerprint,
                "commit": examples.commit,
                "described_by": examples.described_by,
                "n_without_features": examples.n_without_features,
                "assumptions": read_json(config.out / "config.json")["assumptions"],
                "table": table,
                "runs": records(config),
            },
        )
        refresh_cards(config.out, table)
        write_report(config.out, say=lambda message: say(console, message))
    return Experiment(config.out, tuple(trained), tuple(skipped), processes.is_first)


def _project(
    config: TrainConfig, examples: Examples, split: Split, asked: list[Run], device: torch.device, console: Console
) -> None:
    """Write what the additive projection of each trained model in `asked` predicts of the test rows."""
    if not asked:
        return
    parts = load_parts(config, examples, {each.model for each in asked}, device, console)
    for each in asked:
        started = time.monotonic()
        folder = model_folder_of(config, Run(each.model, each.protocol, each.seed))
        model, trained = load_fusion_model(folder, needs_backbones=not config.features)
        accumulate = trained.training.get("accumulate", config.accumulate)  # more where memory did not do
        batch_size = config.model_copy(update={"accumulate": accumulate}).micro_batch_size
        reference = reference_rows(split.test, model.uses_tokens)

        def tell(message: str, name: str = each.name) -> None:
            say(console, f"{name}: {message}")

        with threads_for(model, parts.inputs, config, device):
            logits = emap_logits(model.to(device), parts.inputs, split.test, reference, batch_size, tell)
        seconds = round(time.monotonic() - started, 2)
        training = {**asdict(each), "n_test": len(split.test), "n_reference": len(reference), "seconds": seconds}
        write_json(record_of(config, each), {"training": training})
        write_table(predictions_of(config, each), logits_table(examples, split.test, logits))
        say(console, f"{each.name}: {len(split.test)} test rows, means over {len(reference)} of them, {seconds:.1f} s")


def _write_config(config: TrainConfig, examples: Examples) -> None:
    """Write the resolved config, or check that the folder's experiment is the one that is asked for.

    Beside the settings: who described the images, and what a recipe assumes, also one that an earlier call named.
    """
    path = config.out / "config.json"
    resolved = {**config.model_dump(mode="json"), "epochs": config.n_epochs, "fingerprint": examples.fingerprint}
    assumptions = assumed(resolved)
    backbones: dict[str, Any] = {}
    revisions = {f"{kind}_revision": kind for kind in ("image", "text")}
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{config.out} is a file, and an experiment is a folder", "choose another --out")
    if path.is_file() and (
        any((config.out / "predictions").glob("*.parquet")) or any((config.out / "checkpoints").rglob(FILE_NAME))
    ):  # else nothing was trained with it
        defaults = TrainConfig(dataset="", out=config.out).model_dump(mode="json")  # of settings that are newer than it
        before: dict[str, Any] = {**defaults, **read_json(path)}
        for key, value in resolved.items():
            is_new = key in MAY_COME and before.get(key) is None
            if key in revisions:  # which commit it is does not matter where the weights are known, and are compared
                is_new = revisions[key] in before.get("backbones", {})
            if key == "fingerprint" and before.get(key) != value:
                at = before.get("commit")
                raise UserError(
                    f"{config.out} was begun on other rows: the dataset {config.dataset} has changed since",
                    f"pin it: --revision {at}" if at else "choose another --out, or put the former dataset back",
                )
            if (key not in MAY_CHANGE or key in revisions) and not is_new and before.get(key) != value:
                raise UserError(
                    f"{config.out} holds an experiment with another {key}: there {before.get(key)!r}, now {value!r}",
                    "choose another --out, or delete the folder to train everything again",
                )
        assumptions = assumptions or before.get("assumptions", assumed(before))
        backbones = before.get("backbones", {})
        resolved |= {key: before.get(key) for key in revisions}  # the new one once its weights are known
    elif not path.is_file() and config.out.is_dir() and any(config.out.iterdir()):
        raise UserError(f"{config.out} is not empty and holds no experiment", "choose another --out")
    found = {"commit": examples.commit, "described_by": examples.described_by, "backbones": backbones}
    write_json(path, {**resolved, **found, "assumptions": assumptions})


def _write_backbones(config: TrainConfig, parts: Parts) -> None:
    """Write which encoders the experiment is of beside its settings, or check that they are those that it began with.

    A branch on the Hub moves, a cache may be an old one, and a folder may be replaced: weights tell.
    """
    path = config.out / "config.json"
    values = read_json(path)
    for kind, part in (("image", parts.image), ("text", parts.text)):
        if part is None or part.config.weights is None:
            continue
        now = {"weights": part.config.weights, "revision": part.config.revision}
        before = values["backbones"].setdefault(kind, now)
        values[f"{kind}_revision"] = getattr(config, f"{kind}_revision")
        if before["weights"] != now["weights"]:
            at = before["revision"]
            raise UserError(
                f"{config.out} was begun with other weights of the {kind} backbone {part.config.source}: "
                f"{before['weights']} there{f' (commit {at})' if at else ''}, now {now['weights']}",
                f"--{kind}-revision {at}" if at else "put the former ones back, or choose another --out",
            )
    write_json(path, values)


def _tell_data(console: Console, examples: Examples, splits: dict[Protocol, Split]) -> None:
    for protocol, split in splits.items():
        say(
            console,
            f"{protocol}: {len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test rows, "
            f"{len(examples.class_names)} classes",
        )
        absent = np.setdiff1d(examples.labels[split.test], examples.labels[split.train])
        if len(absent):
            named = ", ".join(f"'{examples.class_names[label]}'" for label in absent)
            say(console, f"{protocol}: no train rows of {named}: test rows of it can only be wrong, and they count")
    if examples.n_without_features:
        say(console, f"{examples.n_without_features} rows of the list have no features and are left out")
    if examples.n_without_text:
        say(console, f"{examples.n_without_text} rows have no description; their text is empty")
