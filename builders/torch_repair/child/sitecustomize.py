"""Starts the repair in a child process: python imports the first `sitecustomize` on PYTHONPATH before anything else.

vLLM's children import torchvision before any plugin of vLLM's is loaded, so nothing later would reach them. The
`sitecustomize` that this one shadows, a distribution's or the user's own, runs afterwards and takes its place.
"""
# Every child process runs this file, and importing pathlib would double its time.
# ruff: noqa: PTH100, PTH118, PTH120

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from os.path import abspath, dirname, join

_HERE = dirname(abspath(__file__))
_HOOK = "builders.torch_repair.hook"

if sys.version_info >= (3, 11):  # noqa: UP036  # another python may inherit the variable
    # By its path: what the driver found on its own sys.path, a child may not find this early.
    spec = spec_from_file_location(_HOOK, join(dirname(_HERE), "hook.py"))
    if spec is not None and spec.loader is not None:
        sys.modules[_HOOK] = hook = module_from_spec(spec)
        spec.loader.exec_module(hook)
        hook.install()

shadowed = PathFinder.find_spec(__name__, [folder for folder in sys.path if abspath(folder) != _HERE])
if shadowed is not None and shadowed.loader is not None:
    sys.modules[__name__] = module = module_from_spec(shadowed)
    shadowed.loader.exec_module(module)
