"""Features of any vision encoder for any photographs, as a file that `audit --features` and `train-features` read."""

import hashlib
import inspect
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import Tensor

from builders.decode import BadImageError, decode_rgb
from builders.errors import UserError
from builders.files import write_atomic
from builders.index import no_image_error
from builders.sources import Source, open_source, pinned
from train.attention_maps import patch_grid
from train.backbones import ImageBackbone, encoder_key, load_image_backbone
from train.device import device_of
from train.heap import keep_freed_memory
from train.memory import Tell, in_batches, is_out_of_memory
from train.pixels import PixelConfig, resize_and_crop
from train.progress import progress_bar, say

PART_IMAGES = 256  # between two files of finished work: what a kill costs at most
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What to compute: `pooled` of the last `n_layers` layers, and with `has_patch_mean` the mean over the patches.

    `size_px`, (height, width), replaces the resize and crop of the checkpoint's own processor: the whole photograph
    is seen, at this size.
    """

    backbone: str
    revision: str | None = None
    n_layers: int = 1
    has_patch_mean: bool = False
    size_px: tuple[int, int] | None = None
    batch_size: int = 32
    device: str = "auto"
    is_bf16: bool = False


def write_features(images: str, out: Path, config: Extraction) -> tuple[int, int]:
    """Write the features of all of IMAGES to `out` (.npz or .parquet); how many there are, and how many were refused.

    Columns: `path`, `image_sha256`, `pooled` (of the last layer), `pooled_2` (of the one before), …, `patch_mean`.
    Finished parts lie in `.NAME.parts` until the file is whole, so the same call goes on where a kill stopped it.
    Raises `UserError` for another ending, a source without images, layers or sizes that the encoder does not have, and
    a device that is not here.
    """
    if out.suffix.lower() not in (".npz", ".parquet"):
        raise UserError(f"{out} ends neither in .npz nor in .parquet", "--out features.npz")
    images = pinned(images)
    device = device_of(config.device)
    config = replace(config, device=str(device))
    keep_freed_memory(device)
    console = Console(stderr=True)
    told: set[str] = set()

    def tell(message: str) -> None:
        if message not in told:  # the same of every batch
            told.add(message)
            say(console, message)

    with open_source(images) as source:
        paths = sorted(source.paths())
        if not paths:
            raise no_image_error(images)
        backbone = load_image_backbone(config.backbone, config.revision).to(config.device).eval()
        pixels = _pixel_config(backbone, config)
        settings = [encoder_key(backbone.model), pixels.model_dump_json(), str(config.n_layers)]
        settings += [str(config.has_patch_mean), str(config.is_bf16), images, *paths]
        key = hashlib.sha256("\n".join(settings).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        folder = out.with_name(f".{out.name}.parts")
        parts = [folder / f"{key}-{start:09}.npz" for start in range(0, len(paths), PART_IMAGES)]
        with progress_bar(console, "image features", len(paths)) as advance:
            for number, part in enumerate(parts):
                names = paths[number * PART_IMAGES : (number + 1) * PART_IMAGES]
                if not _still_holds(part, source):
                    arrays = _encode_part(source, names, backbone, pixels, config, tell)
                    write_atomic(part, lambda file, arrays=arrays: _save_npz(file, arrays))
                advance(len(names))
    merged = _merge(parts)
    n_refused = len(paths) - len(merged["path"])
    if n_refused:
        say(console, f"{n_refused} of {len(paths)} files are no usable images and have no features")
    if not len(merged["path"]):
        fix = "vl-dermnet audit IMAGES --out AUDIT"
        raise UserError(f"none of the {len(paths)} files in {images} is a usable image", fix)
    write_atomic(out, lambda file: (_save_npz if out.suffix.lower() == ".npz" else _save_parquet)(file, merged))
    shutil.rmtree(folder)
    return len(merged["path"]), n_refused


def _still_holds(part: Path, source: Source) -> bool:
    """Whether a part is there, and of the bytes that its files hold now."""
    if not part.is_file():
        return False
    with np.load(part, allow_pickle=False) as archive:
        known = dict(zip(archive["path"].tolist(), archive["image_sha256"].tolist(), strict=True))
    try:
        return all(hashlib.sha256(source.read(name)).hexdigest() == sha256 for name, sha256 in known.items())
    except OSError:
        return False


def _pixel_config(backbone: ImageBackbone, config: Extraction) -> PixelConfig:
    if config.size_px is None:
        return backbone.pixels
    return backbone.pixels.model_copy(
        update={"resize": "exact", "resize_px": config.size_px, "crop_px": config.size_px}
    )


def _encode_part(
    source: Source, names: list[str], backbone: ImageBackbone, pixels: PixelConfig, config: Extraction, tell: Tell
) -> Arrays:
    """The features of a few images; those that cannot be decoded are left out."""
    kept: list[tuple[str, str]] = []
    batches: list[dict[str, Tensor]] = []
    waiting: list[npt.NDArray[np.uint8]] = []

    def encode(rows: slice) -> dict[str, Tensor]:
        return _encode(backbone, np.stack(waiting[rows]), config)

    def flush() -> None:
        batches.extend(found for _, found in in_batches(len(waiting), config.batch_size, encode, "features", tell))
        waiting.clear()

    for path, sha256, packed in _decoded(source, names, pixels):
        kept.append((path, sha256))
        waiting.append(packed)
        if len(waiting) == config.batch_size:
            flush()
    flush()
    arrays: Arrays = {
        "path": np.array([path for path, _ in kept], dtype=np.str_),
        "image_sha256": np.array([sha256 for _, sha256 in kept], dtype=np.str_),
    }
    for name in batches[0] if batches else ():
        arrays[name] = torch.cat([batch[name] for batch in batches]).numpy()
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"the backbone '{config.backbone}' gave features that are not finite", "leave out --bf16")
    return arrays


def _decoded(source: Source, names: list[str], pixels: PixelConfig) -> Iterator[tuple[str, str, npt.NDArray[np.uint8]]]:
    for path in names:
        try:
            data = source.read(path)
            image, _ = decode_rgb(data)
            path.encode()
        except (OSError, BadImageError, UnicodeEncodeError):
            continue  # counted by the caller; `audit` tells why
        yield path, hashlib.sha256(data).hexdigest(), resize_and_crop(image, pixels)


@torch.inference_mode()
def _encode(backbone: ImageBackbone, packed: npt.NDArray[np.uint8], config: Extraction) -> dict[str, Tensor]:
    """`pooled`, `pooled_2`, … and `patch_mean`, each (batch, dim), in float32 on the CPU."""
    model: Any = backbone.model
    options: dict[str, bool] = {}
    if config.n_layers > 1:
        options["output_hidden_states"] = True
    if config.size_px is not None and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        options["interpolate_pos_encoding"] = True
    normalised = backbone.normalise(torch.from_numpy(packed).to(config.device))
    with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.is_bf16):
        try:
            said = model(pixel_values=normalised, **options)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise  # it says nothing of the images' size; the caller halves the batch
            size = f"{packed.shape[1]} × {packed.shape[2]}"
            raise UserError(
                f"the backbone '{config.backbone}' does not take images of {size} pixels: {error}", "leave out --size"
            ) from error
        states = [said.last_hidden_state]
        if config.n_layers > 1:
            before = said.hidden_states[:-1]
            if config.n_layers > len(before):
                raise UserError(f"the backbone '{config.backbone}' has {len(before)} layers", "--layers, fewer")
            norms = (getattr(model, name, None) for name in ("layernorm", "post_layernorm", "norm"))
            norm = next((each for each in norms if each is not None), None)
            states += [state if norm is None else norm(state) for state in before[: -config.n_layers : -1]]
    found: dict[str, Tensor] = {}
    for number, state in enumerate(states, start=1):
        tokens = state.flatten(2).transpose(1, 2) if state.ndim == 4 else state
        tokens = tokens[:, 1:] if backbone.config.skips_first else tokens
        pooled = tokens[:, 0] if backbone.config.pooling == "first" else tokens.mean(dim=1)
        found["pooled" if number == 1 else f"pooled_{number}"] = pooled.float().cpu()
        if number == 1 and config.has_patch_mean:
            found["patch_mean"] = tokens[:, _n_before(backbone, tokens, config) :].mean(dim=1).float().cpu()
    return found


def _n_before(backbone: ImageBackbone, tokens: Tensor, config: Extraction) -> int:
    """How many tokens come before the patches: class token, registers, distillation token."""
    grid = patch_grid(backbone, tokens.shape[1], config.size_px or backbone.pixels.crop_px)
    return int(backbone.config.pooling == "first") if grid is None else grid.n_before


def _merge(parts: list[Path]) -> Arrays:
    pieces: dict[str, list[npt.NDArray[Any]]] = {}
    for part in parts:
        with np.load(part, allow_pickle=False) as archive:
            if len(archive["path"]):
                for name in archive.files:
                    pieces.setdefault(name, []).append(archive[name])
    empty: Arrays = {"path": np.array([], dtype=np.str_)}
    return {name: np.concatenate(arrays) for name, arrays in pieces.items()} or empty


def _save_npz(file: Path, arrays: Arrays) -> None:
    with file.open("wb") as handle:  # a handle: `savez` would add its ending to a name
        np.savez(handle, allow_pickle=False, **arrays)


def _save_parquet(file: Path, arrays: Arrays) -> None:
    columns = {
        name: pa.array(array.tolist(), pa.string())
        if array.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
        for name, array in arrays.items()
    }
    pq.write_table(pa.table(columns), file)
