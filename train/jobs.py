"""Several runs at once, each in a process: how many small heads are trained on many cores."""

import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import datasets
import torch
from rich.console import Console

from builders.errors import UserError
from builders.index import n_cores
from builders.workers import WorkerDiedError, unordered_map
from train.config import READ_AGAIN, TrainConfig
from train.controls import CONTROLS
from train.controls.setting import Setting
from train.data import Examples, load_examples, split_of
from train.device import device_of
from train.heap import keep_freed_memory
from train.matrix import Run, longest_first
from train.one_run import train_one
from train.parts import Parts, load_parts
from train.processes import ALONE
from train.progress import say


def train_at_once(
    config: TrainConfig,
    examples: Examples,
    pending: list[Run],
    parts: Parts,
    device: torch.device,
    advance: Callable[[int], None],
    console: Console,
) -> None:
    """`train_one` for each of `pending`, `config.n_jobs` at a time, in processes that read what `parts` left on disk.

    A process that dies is replaced, and its run goes on from its checkpoint; the third death on one run ends the
    experiment with a `UserError`. What a run raises is raised here, and the others end.
    """
    for control in sorted({each.control for each in pending if each.control in READ_AGAIN}):
        # What it encodes is kept on disk: here with all cores, and not in every process anew.
        first = next(each for each in pending if each.control == control)
        split = split_of(examples, first.protocol)
        CONTROLS[control](
            Setting(
                first.model, first.seed, examples, split, parts.image, parts.text, parts.inputs, config, device, console
            )
        )
    n_processes = min(config.n_jobs, len(pending))
    models = frozenset(each.model for each in pending)
    job = _Job(config, examples.fingerprint, examples.commit, models, n_processes)
    with closing(unordered_map(job, longest_first(pending, lambda each: each.model), n_processes)) as done:
        for this, told in done:
            if isinstance(told, WorkerDiedError):
                raise UserError(
                    f"process after process died while it trained {this.name}; perhaps memory ran out. What was "
                    "finished is kept",
                    "the same command again, with fewer --jobs",
                )
            for line in told.splitlines():
                say(console, line)
            advance(config.n_epochs)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a process does with a run, and the lines that are told of it; what it needs is read once."""

    config: TrainConfig
    fingerprint: str
    commit: str | None
    models: frozenset[str]
    n_processes: int

    def __call__(self, this: Run) -> str:
        examples, parts = _read(self)
        split, device, told = split_of(examples, this.protocol), device_of(self.config.device), io.StringIO()
        train_one(self.config, examples, split, this, parts, device, lambda _: None, Console(file=told), ALONE)
        return told.getvalue()


@cache
def _read(job: _Job) -> tuple[Examples, Parts]:
    datasets.disable_progress_bars()
    device = device_of(job.config.device)
    torch.set_num_threads(max(1, n_cores() // job.n_processes))
    keep_freed_memory(device)
    examples = load_examples(job.config)
    if examples.fingerprint != job.fingerprint:
        fix = f"--revision {job.commit}" if job.commit else "choose another --out, or put the former dataset back"
        raise UserError(f"{job.config.dataset} changed after this experiment began", fix)
    return examples, load_parts(job.config, examples, set(job.models), device, Console(quiet=True))
