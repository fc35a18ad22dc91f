"""What enters an image encoder's first trained block, computed once: the frozen blocks before it need not run again.

A forward pass is the model's own. Only its embeddings and frozen blocks are passed over, and the first trained block
gets what was kept in place of what it is given; masks, rotary positions and all that follows are computed as ever.
"""

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.files import sync_folder, write_atomic
from train.augmentation import is_mirrored
from train.backbones import Encoded, ImageBackbone, encoder_key
from train.data import Rows
from train.mapped import check_room, precision_of, size_of
from train.memory import Tell, in_batches, untold
from train.pixels import PackedPixels
from train.trained import last_blocks

_ROWS_AT_ONCE = 16  # through the encoder: on a CPU a tenth faster than 64 (DINOv2-S)
_TOLERANCE = 1e-3  # of the largest number that an encoder gives
_OPTION = "--image-layers"
_LEAVE_OUT = "leave --cache-frozen-blocks out"


@dataclass(frozen=True, slots=True)
class FrozenBlocks:
    """States that enter the first of the last `n_layers` blocks, (n_views, n_rows, …): of the photographs, and, where
    there are two views, of their mirror images."""

    states: npt.NDArray[Any] | Tensor
    n_layers: int
    device: torch.device

    def states_of(self, rows: Rows, order: tuple[int, int] | None = None) -> Tensor:
        """(len(rows), …) states of `rows`; with `order`, which is (seed, epoch), of half of them mirrored."""
        n_views = len(self.states)
        views = np.zeros(len(rows), dtype=np.int64)
        if order is not None and n_views > 1:
            views = is_mirrored(rows, *order).astype(np.int64)
        if isinstance(self.states, Tensor):
            to = self.states.device
            return self.states[torch.from_numpy(views).to(to), torch.from_numpy(rows).to(to)].float()
        return torch.from_numpy(self.states[views, rows]).to(self.device).float()

    def encode(self, backbone: ImageBackbone, rows: Rows) -> Encoded:
        """What `backbone` says of the photographs in `rows`."""
        states = self.states_of(rows)
        with begun_with(backbone, states, self.n_layers):
            return backbone(stand_in(backbone, len(rows)))


def stand_in(backbone: ImageBackbone, n_rows: int) -> Tensor:
    """(n_rows, 3, height, width) pixels that nothing looks at, for a forward pass that begins behind them."""
    return backbone.mean.new_zeros(1, 1, 1, 1).expand(n_rows, 3, *backbone.pixels.crop_px)


@contextmanager
def begun_with(backbone: ImageBackbone, states: Tensor, n_layers: int) -> Generator[None]:
    """While it lasts, `backbone` begins at its last `n_layers` blocks, with `states`, whatever pixels it is given.

    What draws at random before the blocks (DINOv3's positions, in training) does not: the states know one draw only.
    """
    first, passed_over, weightless = _before(backbone, n_layers)
    were_training = [module for module in weightless if module.training]
    for module in were_training:
        module.training = False
    for module in passed_over:
        module.forward = lambda *_, **__: states  # pyright: ignore[reportUnknownLambdaType]

    def give(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((states, *arguments[1:]), named) if arguments else ((), {**named, "hidden_states": states})

    hook = first.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        for module in passed_over:
            del module.forward
        for module in were_training:
            module.training = True


def _before(backbone: ImageBackbone, n_layers: int) -> tuple[nn.Module, list[nn.Module], list[nn.Module]]:
    """The first trained block; what is passed over, embeddings and frozen blocks; and what is without weights before
    the blocks."""
    blocks = [block for _, block in last_blocks(backbone, None, _OPTION)]
    first = last_blocks(backbone, n_layers, _OPTION)[0][1]
    passed_over, weightless = blocks[: len(blocks) - n_layers], list[nn.Module]()
    for name, module in backbone.model.named_modules():  # in the order of registration
        if module is blocks[0]:
            break
        if name.rpartition(".")[2] == "embeddings":
            passed_over.append(module)
        elif not any(True for _ in module.parameters()):
            weightless.append(module)
    return first, passed_over, weightless


@torch.inference_mode()
def cache_frozen_blocks(
    backbone: ImageBackbone,
    n_layers: int,
    pixels: PackedPixels,
    pixels_key: str,
    n_views: int,
    cache: Path,
    on_images: Callable[[int], None],
    tell: Tell = untold,
) -> npt.NDArray[Any]:
    """The states that enter the first of the last `n_layers` blocks, memory-mapped: (n_views, n_images, …).

    The second view is the photograph mirrored. They are computed only where the same ones are not there yet; a call
    that was stopped is continued. `tell` is called with their size, and where batches had to be halved. Raises
    `UserError` on more blocks than there are, where an encoder cannot be begun at a block, and where the disk is full.
    """
    n_images, device = len(pixels), next(backbone.parameters()).device
    asked = [encoder_key(backbone.model), backbone.config.model_dump_json(), pixels_key, f"{n_layers} {n_views}"]
    folder = cache / f"image-blocks-{hashlib.sha256('|'.join(asked).encode()).hexdigest()[:16]}"
    target, part, progress = (folder / name for name in ("states.npy", ".states.npy.part", ".n_computed"))
    if target.is_file():
        on_images(n_views * n_images)
        return np.load(target, mmap_mode="r")

    def pixels_of(rows: slice, view: int) -> Tensor:
        seen = torch.from_numpy(np.array(pixels[rows])).to(device)
        return seen.flip(2) if view else seen

    first = _checked(backbone, n_layers, pixels_of(slice(0, min(2, n_images)), 0))
    shape = (n_views, n_images, *first.shape[1:])
    dtype = precision_of(shape)
    n_bytes_each = int(np.prod(shape[2:])) * dtype.itemsize
    folder.mkdir(parents=True, exist_ok=True)
    n_bytes = n_views * n_images * n_bytes_each
    is_begun = part.is_file() and part.stat().st_size > n_bytes  # behind a header: another process may be writing it
    n_computed = int(progress.read_text()) if progress.is_file() and is_begun else 0
    n_lacking = n_views * n_images - n_computed
    n_blocks = len(last_blocks(backbone, None, _OPTION))
    tell(
        f"what enters block {n_blocks - n_layers + 1} of {n_blocks} of {type(backbone.model).__name__} is computed once"
        f" for {n_images:,} photographs{' and their mirror images' if n_views > 1 else ''}:"
        f" {size_of(n_bytes)} in {dtype.name}, below {cache}"
        + (f"; {n_computed:,} of {n_views * n_images:,} are there" if n_computed else "")
    )
    room = f"make room, choose --no-augment (no mirror images), or {_LEAVE_OUT}"
    check_room(cache, n_lacking * n_bytes_each, "what enters the first trained block and is not there yet", room)
    states = np.lib.format.open_memmap(part, mode="r+" if is_begun else "w+", dtype=dtype, shape=shape)
    on_images(n_computed)
    for view in range(n_views):
        start = min(n_images, max(0, n_computed - view * n_images))

        def entering(rows: slice, view: int = view, start: int = start) -> Tensor:
            return _entering(backbone, n_layers, pixels_of(slice(start + rows.start, start + rows.stop), view))[0]

        for rows, found in in_batches(n_images - start, _ROWS_AT_ONCE, entering, "frozen blocks", tell):
            to = slice(start + rows.start, start + rows.stop)
            states[view, to] = found.float().cpu().numpy()
            if not np.isfinite(states[view, to]).all():
                raise UserError(f"a frozen block gave numbers that {dtype.name} cannot hold (inf or nan)", _LEAVE_OUT)
            states.flush()
            done = str(view * n_images + to.stop)
            write_atomic(progress, lambda path, done=done: path.write_text(done))
            on_images(rows.stop - rows.start)
    del states
    if part.is_file():
        part.replace(target)
    sync_folder(folder)
    progress.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")


def _entering(backbone: ImageBackbone, n_layers: int, pixels: Tensor) -> tuple[Tensor, Encoded]:
    """What enters the first of the last `n_layers` blocks, and what the encoder says in the end."""
    entered: list[Tensor] = []

    def take(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered.append(arguments[0] if arguments else named["hidden_states"])

    hook = last_blocks(backbone, n_layers, _OPTION)[0][1].register_forward_pre_hook(take, with_kwargs=True)
    try:
        encoded = backbone(pixels)
    finally:
        hook.remove()
    return entered[0], encoded


def _checked(backbone: ImageBackbone, n_layers: int, pixels: Tensor) -> Tensor:
    """The states of some photographs, after the encoder has given the same from them as from the pixels."""
    name = type(backbone.model).__name__
    try:
        states, expected = _entering(backbone, n_layers, pixels)
        with begun_with(backbone, states, n_layers):
            found = backbone(stand_in(backbone, len(pixels)))
        most = _TOLERANCE * float(expected.tokens.abs().max())
        is_same = torch.allclose(found.tokens, expected.tokens, rtol=0, atol=most)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be begun at one of its blocks: {error}", _LEAVE_OUT) from error
    if not is_same:
        raise UserError(f"{name} does not give the same when it is begun at one of its blocks", _LEAVE_OUT)
    return states
