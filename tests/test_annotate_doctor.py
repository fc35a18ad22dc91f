"""`vl-dermnet doctor`: what it finds, what it says to type, and what it never says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from annotate.doctor import Finding, examine, render
from tests.absent import code_without

REPOSITORY = Path(__file__).resolve().parent.parent


def findings_beside(site: Path, absent: tuple[str, ...] = (), **environ: str) -> dict[str, dict[str, str]]:
    """The findings, by name, of a Python that sees the packages of `site` first, and none of those `absent`."""
    code = code_without(*absent) + "import dataclasses, json; from annotate.doctor import examine\n"
    code += "print(json.dumps([dataclasses.asdict(finding) for finding in examine()]))"
    paths = os.pathsep.join([str(site), str(REPOSITORY)])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return {finding["name"]: finding for finding in json.loads(run.stdout)}


def write_distribution(site: Path, *requirements: str) -> None:
    """A vl-dermnet of other requirements, found before the installed one, beside a torch that is no torch."""
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text("")
    folder = site / "vl_dermnet-9.9.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        "Name: vl-dermnet",
        "Version: 9.9",
        *(f"Requires-Dist: {r}" for r in requirements),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return examine()


def test_every_warning_says_what_to_type(findings):
    for finding in findings:
        assert finding.status in ("ok", "warn", "missing")
        assert finding.detail
        assert finding.fix or finding.status != "warn", finding


def test_little_memory_is_told_with_a_whole_command(monkeypatch):
    monkeypatch.setattr("annotate.doctor.MIN_MEMORY_GB", 1e6)
    (memory,) = [finding for finding in examine() if finding.name == "memory"]
    assert memory.fix == "vl-dermnet annotate IMAGES --out RUN --engine transformers"


def test_the_packages_are_those_of_the_distribution(tmp_path: Path):
    write_distribution(
        tmp_path,
        "pyarrow>=1",
        "nowhere-to-be-found>=2.0",
        "pytest>=1; extra == 'dev'",
        "vllm>=0.32; extra == 'vllm'",
        'no-such-vllm-cpu>=0.32; extra == "cpu"',
        "no-such-train; extra == 'train'",
    )
    found = findings_beside(tmp_path)
    assert (found["vl-dermnet"]["status"], found["vl-dermnet"]["detail"]) == ("ok", "9.9")
    assert found["pyarrow"]["status"] == "ok"
    assert found["nowhere-to-be-found"] == {
        "name": "nowhere-to-be-found",
        "status": "warn",
        "detail": "not installed",
        "fix": "pip install nowhere-to-be-found",
    }
    assert found["extra dev"]["status"] == "ok"
    assert found["extra train"] == {
        "name": "extra train",
        "status": "missing",
        "detail": "lacks no-such-train",
        "fix": "pip install 'vl-dermnet[train]'",
    }


def test_one_of_the_two_vllm_extras_is_enough(tmp_path: Path):
    write_distribution(tmp_path, "no-such-gpu-vllm; extra == 'vllm'", "pytest; extra == 'cpu'")
    found = findings_beside(tmp_path)
    assert (found["extra vllm"]["status"], found["extra vllm"]["fix"]) == ("missing", "")
    assert found["extra vllm"]["detail"] == "not needed: 'cpu' is installed"


def without_torchvision(site: Path) -> None:
    """The packages of `site`: what the engine transformers needs, beside a torch and no torchvision."""
    write_distribution(site, *(f"{package}; extra == 'transformers'" for package in ("torch", "torchvision")))
    (site / "torch" / "version.py").write_text("__version__ = '2.13.0+cpu'\n")
    (site / "torchvision").mkdir()
    (site / "torchvision" / "version.py").write_text("")


def test_train_alone_is_not_warned_of_an_absent_torchvision(tmp_path: Path):
    without_torchvision(tmp_path)
    found = findings_beside(tmp_path, absent=("torchvision", "vllm"))
    assert "torchvision" not in found
    assert found["extra transformers"] == {
        "name": "extra transformers",
        "status": "missing",
        "detail": "lacks torchvision",
        "fix": "pip install 'vl-dermnet[transformers]'",
    }


def test_vllm_is_warned_of_an_absent_torchvision_with_what_to_type_for_this_torch(tmp_path: Path):
    without_torchvision(tmp_path)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("")
    found = findings_beside(tmp_path, absent=("torchvision",))
    assert found["torchvision"] == {
        "name": "torchvision",
        "status": "warn",
        "detail": "not installed beside torch 2.13.0+cpu; vllm needs it",
        "fix": "pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 torchvision",
    }


def test_the_token_is_found_and_never_shown(tmp_path: Path):
    write_distribution(tmp_path)
    found = findings_beside(tmp_path, HF_TOKEN="hf_" + "s" * 34)
    assert found["hub token"]["detail"] == "present"
    assert "sss" not in json.dumps(found)


def test_the_table_shows_every_finding_and_each_fix_on_one_line(findings, capsys):
    render(findings)
    lines = capsys.readouterr().out.splitlines()
    for finding in findings:
        assert any(line.startswith(finding.name) for line in lines)
        assert not finding.fix or f"  {finding.name}: {finding.fix}" in lines
