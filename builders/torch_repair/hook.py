"""The repair itself, cheap enough for every child process: it reads version files and imports no torch.

`import torchvision` fails with `operator torchvision::nms does not exist` where its wheel was built for another torch
than the installed one. Declaring the operators' schemas is enough: the transforms are pure Python, and an operator that
is really called still raises. torchaudio and torchcodec in the same state break transformers, which can do without.
"""
# Importing pathlib would take longer than all the rest of this file.
# ruff: noqa: PTH118, PTH123

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_OPTIONAL = ("torchaudio", "torchcodec")  # what uses them looks first whether they are there
_EXTENSION = "torchvision.extension"  # loads the shared library, before the modules that name its operators
_NEEDS_OPERATORS = ("torchvision._meta_registrations", "torchvision._autograd_registrations")

_ROI = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SIZE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_BACK = f"float spatial_scale, SymInt pooled_height, SymInt pooled_width, {_SIZE}"
_CONV = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h,"
    " SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask"
)
_DEFORM = f"Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_CONV}"
# All of torchvision 0.29, as `torch.ops.torchvision.<name>.default._schema` prints them where it works.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    "qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, float rois_scale,"
    " int rois_zero_point, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio,"
    " bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_BACK}, int sampling_ratio, bool aligned) -> Tensor",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale,"
    f" SymInt pooled_height, SymInt pooled_width, int sampling_ratio, {_SIZE}) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_BACK}) -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_BACK}) -> Tensor",
    f"deform_conv2d({_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    "_cuda_version() -> int",
)
_NO_BRACKETS = {ord(character): None for character in "( )"}  # `torch (==2.13.0)` is written both ways
_KEPT: list[object] = []  # a torch.library.Library takes its operators with it when it is collected


def version_of(package: str) -> str:
    """The version in `package`'s version.py, such as `0.28.0+cu130`; empty if it is not installed. Imports nothing."""
    for folder in sys.path:
        try:
            with open(os.path.join(folder, package, "version.py"), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        return next((line.split("=")[1].strip(" \"'") for line in lines if line.startswith("__version__")), "")
    return ""


def mismatch(package: str) -> str:
    """Why the installed `package` cannot work beside the installed torch; empty if nothing is wrong or not installed.

    A build for one accelerator links libraries (`libc10_cuda.so`, `libcudart.so.13`) that another build lacks; builds
    for one CUDA major version share them. torchvision, whose interface is torch's C++, needs its own torch release too.
    """
    torch, own = version_of("torch"), version_of(package)
    if not torch or not own:
        return ""
    torch_build, own_build = _accelerator(torch), _accelerator(own)
    if torch_build and own_build not in ("", "cpu", torch_build):
        return f"built for {own.partition('+')[2]}, beside torch {torch}"
    needed = _torch_release_needed_by(package, own)
    if needed and needed != torch.partition("+")[0]:
        return f"built for torch {needed}, beside torch {torch}"
    return ""


def _accelerator(version: str) -> str:
    """`cpu`, `cu13`, `rocm` or `xpu` from a version's local part; empty where it says nothing, as in a source build."""
    build = version.partition("+")[2]
    return build[:4] if build.startswith(("cpu", "cu1", "rocm", "xpu")) else ""


def _torch_release_needed_by(package: str, version: str) -> str:
    """The release in the distribution's requirement `torch==X`; empty where it has none."""
    for folder in sys.path:
        for name in (version, version.partition("+")[0]):
            try:
                with open(os.path.join(folder, f"{package}-{name}.dist-info", "METADATA"), encoding="utf-8") as file:
                    lines = file.read().partition("\n\n")[0].translate(_NO_BRACKETS).splitlines()
            except OSError:
                continue
            pins = [line.partition("torch==")[2] for line in lines if line.startswith("Requires-Dist:torch==")]
            return pins[0].partition(";")[0].partition("+")[0] if pins else ""
    return ""


def install() -> None:
    """Watch the import of torchvision, and make a broken torchaudio or torchcodec look absent. Twice is once."""
    if not is_installed():
        sys.meta_path.insert(0, _TorchvisionFinder())
    for package in _OPTIONAL:
        if package not in sys.modules and mismatch(package):
            # `import` then raises ModuleNotFoundError and `find_spec` returns None:
            # https://docs.python.org/3/reference/import.html#the-module-cache
            sys.modules[package] = None  # pyright: ignore[reportArgumentType]
    seen = sys.modules.get("datasets.config")
    if seen is not None and is_hidden("torchcodec"):  # `datasets` looked before it was hidden
        seen.__dict__["TORCHCODEC_AVAILABLE"] = False


def is_installed() -> bool:
    """Whether this process watches the import of torchvision."""
    return any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path)


def is_hidden(package: str) -> bool:
    """Whether this process takes `package` for absent."""
    return package in sys.modules and not sys.modules[package]


class _TorchvisionFinder:
    """Lets torchvision's own verdict decide: operators are declared only where it could not load its library."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None, /) -> ModuleSpec | None:
        if name != _EXTENSION and name not in _NEEDS_OPERATORS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _TorchvisionLoader(name, spec.origin)
        return spec


class _TorchvisionLoader(SourceFileLoader):
    """Runs one of torchvision's modules with its operators declared."""

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == _EXTENSION:
            super().exec_module(module)
            if not module._has_ops():  # torchvision's own name
                _declare_operators()
            return
        try:
            super().exec_module(module)
        except (AttributeError, RuntimeError) as error:
            if _KEPT:
                error.add_note(
                    f"torchvision {version_of('torchvision')} is {mismatch('torchvision')}, and it has an operator that"
                    " builders/torch_repair/hook.py does not declare.\n  fix: install the torchvision of your torch"
                )
            raise


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _KEPT.append(library)
