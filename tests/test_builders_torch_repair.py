"""The repair of a torchvision built for another torch: on fake packages, and on the real ones where they mismatch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.torch_repair import child_environment, diagnose, hook

REPOSITORY = Path(__file__).parent.parent
FAKE_TORCH = """
class _Operators:
    pass
class ops:
    torchvision = _Operators()
class library:
    class Library:
        def __init__(self, namespace, kind):
            assert (namespace, kind) == ("torchvision", "DEF")
        def define(self, schema):
            setattr(ops.torchvision, schema.partition("(")[0], schema)
"""
FAKE_TORCHVISION = {
    "__init__.py": "import torch\nfrom . import extension\nfrom torchvision import _meta_registrations\n",
    "_meta_registrations.py": "import torch\ntorch.ops.torchvision.nms\n",
}


def write_package(site: Path, name: str, version: str, files: dict[str, str], needs_torch: str = "") -> None:
    (site / name).mkdir(parents=True)
    for file, text in {**files, "version.py": f"__version__ = '{version}'\n"}.items():
        (site / name / file).write_text(text)
    metadata = site / f"{name}-{version.partition('+')[0]}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Name: {name}\n" + (f"Requires-Dist: torch (=={needs_torch})\n" if needs_torch else ""))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A CUDA torchvision and torchaudio beside a CPU torch."""
    write_package(tmp_path, "torch", "9.1.0+cpu", {"__init__.py": FAKE_TORCH})
    extension = {"extension.py": "def _has_ops():\n    return False\n"}
    write_package(tmp_path, "torchvision", "9.2.0+cu130", FAKE_TORCHVISION | extension, needs_torch="9.1.0")
    write_package(tmp_path, "torchaudio", "9.1.0+cu130", {"__init__.py": "raise OSError('Could not load')"})
    write_package(tmp_path, "torchcodec", "9.1.0+cpu", {"__init__.py": ""})  # fits: shadows the installed one
    return tmp_path


def python(code: str, *folders: Path | str) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a new Python that sees `folders` first, with warnings as errors."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)


def test_without_the_repair_the_import_fails(site: Path):
    result = python("import torchvision", site, REPOSITORY)
    assert "has no attribute 'nms'" in result.stderr


def test_the_repair_makes_torchvision_import_and_hides_torchaudio(site: Path):
    code = """
import sys
from importlib.util import find_spec
from builders.torch_repair import diagnose, repair
assert [(m.package, m.is_repaired) for m in diagnose()] == [("torchvision", False), ("torchaudio", False)]
repair(); repair()
assert [(m.package, m.is_repaired) for m in diagnose()] == [("torchvision", True), ("torchaudio", True)]
assert "torch" not in sys.modules
import torchvision
assert find_spec("torchaudio") is None
print(*(f"{m.package} {m.version} {m.reason}" for m in diagnose()), sep="\\n")
"""
    result = python(code, site, REPOSITORY)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "torchvision 9.2.0+cu130 built for cu130, beside torch 9.1.0+cpu",
        "torchaudio 9.1.0+cu130 built for cu130, beside torch 9.1.0+cpu",
    ]


def test_a_torchvision_of_another_torch_release_is_a_mismatch(site: Path):
    (site / "torchvision" / "version.py").write_text("__version__ = '9.2.0+cpu'\n")
    (site / "torch" / "version.py").write_text("__version__ = '9.5.0+cpu'\n")
    result = python("from builders.torch_repair import diagnose; print(diagnose()[0].reason)", site, REPOSITORY)
    assert result.stdout == "built for torch 9.1.0, beside torch 9.5.0+cpu\n"


@pytest.mark.parametrize("torch_version", ["9.1.0+cu130", "9.1.0+cu131", "9.1.0", "9.1.0+a1b2c3d"])
def test_matching_builds_are_left_alone(site: Path, torch_version: str):
    (site / "torch" / "version.py").write_text(f"__version__ = '{torch_version}'\n")
    code = """
import os, sys
from importlib.util import find_spec
from builders.torch_repair import child_environment, diagnose, repair
before = list(sys.meta_path)
repair()
assert sys.meta_path == before
assert diagnose() == [] and child_environment(os.environ) == {}
assert find_spec("torchaudio") is not None
"""
    result = python(code, site, REPOSITORY)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_operators_are_declared_only_where_torchvision_could_not_load_its_own(site: Path):
    extension = "import torch\ntorch.ops.torchvision.nms = 'compiled'\ndef _has_ops():\n    return True\n"
    (site / "torchvision" / "extension.py").write_text(extension)
    code = """
from builders.torch_repair import repair
repair()
import torch, torchvision
assert vars(torch.ops.torchvision) == {"nms": "compiled"}
"""
    assert python(code, site, REPOSITORY).stderr == ""


def test_an_operator_that_the_repair_does_not_know_is_named_with_a_fix(site: Path):
    (site / "torchvision" / "_meta_registrations.py").write_text("import torch\ntorch.ops.torchvision.nms3d\n")
    result = python("from builders.torch_repair import repair; repair()\nimport torchvision", site, REPOSITORY)
    assert result.stderr.splitlines()[-3:] == [
        "AttributeError: '_Operators' object has no attribute 'nms3d'",
        "torchvision 9.2.0+cu130 is built for cu130, beside torch 9.1.0+cpu, and it has an operator that"
        " builders/torch_repair/hook.py does not declare.",
        "  fix: install the torchvision of your torch",
    ]


def test_a_child_process_is_repaired_before_its_first_line(site: Path):
    code = "from builders.torch_repair import child_environment; print(child_environment({'PYTHONPATH': '/other'}))"
    additions = eval(python(code, site, REPOSITORY).stdout)  # the printed dict of strings
    folder, other = additions["PYTHONPATH"].split(os.pathsep)
    assert other == "/other"
    child = "import sys, torchvision\nassert 'torchaudio' in sys.modules\nfrom builders.torch_repair import hook\n"
    child += "assert hook.is_installed() and len([f for f in sys.meta_path if 'Torchvision' in repr(f)]) == 1"
    result = python(child, folder, site, REPOSITORY)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_sitecustomize_that_it_shadows_still_runs(site: Path, tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('mine')\nMARK = 1\n")
    child = "import sitecustomize, torchvision; print(sitecustomize.MARK, sitecustomize.__file__)"
    result = python(child, Path(hook.__file__).parent / "child", site, own)
    assert result.stdout.split() == ["mine", "1", str(own / "sitecustomize.py")]
    assert result.stderr == ""


def test_the_environment_is_extended_once():
    additions = child_environment({})
    assert child_environment(additions) == {}


def test_the_start_of_a_child_imports_nothing_slow():
    code = "import sys; print([n for n in ('torch', 'pathlib', 'typing', 're', 'dataclasses') if n in sys.modules])"
    assert python(code, Path(hook.__file__).parent / "child").stdout == python(code).stdout


@pytest.mark.slow
@pytest.mark.skipif(not diagnose(), reason="the installed torchvision fits the installed torch")
def test_the_installed_torchvision_imports_where_it_mismatches():
    broken = python("import torchvision", REPOSITORY)
    assert "operator torchvision::nms does not exist" in broken.stderr
    child = Path(hook.__file__).parent / "child"
    code = """
import torch, torchvision
from torchvision.transforms.v2 import functional
from transformers.utils import is_torchaudio_available, is_torchcodec_available
assert functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)
assert not is_torchaudio_available() and not is_torchcodec_available()
from transformers import InternVLVideoProcessor
print(InternVLVideoProcessor().size)
try:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    print("Couldn't load custom C++ ops" in str(error))
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(child), str(REPOSITORY)])}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "True"


def test_datasets_loaded_before_the_repair_learns_what_was_hidden():
    code = (
        "import datasets.config as config, sys; from builders.torch_repair import repair; repair();"
        "is_hidden = 'torchcodec' in sys.modules and sys.modules['torchcodec'] is None;"
        "print(is_hidden, config.TORCHCODEC_AVAILABLE)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if ended.stdout.startswith("False"):
        pytest.skip("nothing is hidden here: torchcodec works, or is not installed")
    assert ended.stdout == "True False\n"
