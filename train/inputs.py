"""Where the loop gets a batch's features from: computed live from pixels and token ids, or once and then from disk."""

import hashlib
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.files import write_atomic
from train.augmentation import augment
from train.backbones import Encoded, ImageBackbone, TextBackbone, encoder_key
from train.data import Rows
from train.features import Features
from train.frozen_blocks import FrozenBlocks, begun_with, stand_in
from train.mapped import new_array, precision_of
from train.memory import Tell, in_batches, untold
from train.model import FusionModel, no_features
from train.pixels import PackedPixels
from train.texts import TokenisedTexts

TokensAndPooled = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # (n, n_tokens, dim) and (n, dim), memory-mapped
_ROWS_AT_ONCE = 64  # through a frozen backbone


def resident(array: npt.NDArray[Any], device: torch.device) -> Tensor | None:
    """`array` on a GPU, where it takes no more than half of what is free there: then no step waits for the host."""
    if device.type != "cuda" or array.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return None
    return torch.from_numpy(np.asarray(array)).to(device)


class LiveInputs:
    """Features through the model's own backbones, batch by batch: what fine-tuning needs.

    Pixels may be a memory-mapped array or a tensor; an array that fits is moved to the GPU, once. With `frozen_blocks`
    an image encoder begins behind them, from what was kept, and does not look at the pixels.
    """

    def __init__(
        self,
        pixels: PackedPixels | Tensor | None,
        texts: TokenisedTexts | None,
        device: torch.device,
        is_augmented: bool,
        frozen_blocks: FrozenBlocks | None = None,
    ) -> None:
        on_device = resident(pixels, device) if isinstance(pixels, np.ndarray) and frozen_blocks is None else None
        self.pixels = pixels if on_device is None else on_device
        self.texts = texts
        self.device = device
        self.is_augmented = is_augmented
        self.frozen_blocks = frozen_blocks

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        """The features of `rows`; with `order`, which is (seed, epoch), of augmented pixels."""
        pixels = token_ids = mask = None
        beginning: AbstractContextManager[None] = nullcontext()
        if model.image is not None and self.pixels is not None:
            kept = self.frozen_blocks
            if kept is not None and isinstance(model.image, ImageBackbone):
                states = kept.states_of(rows, order if self.is_augmented else None)
                pixels, beginning = stand_in(model.image, len(rows)), begun_with(model.image, states, kept.n_layers)
            else:
                pixels = self.pixels_of(rows)
                if order is not None and self.is_augmented:
                    pixels = augment(pixels, rows, *order)
        if model.text is not None and self.texts is not None:
            length = max(1, int(self.texts.mask[rows].sum(axis=1).max()))  # no longer than the batch needs
            token_ids = self._moved(self.texts.token_ids[rows, :length])
            mask = self._moved(self.texts.mask[rows, :length])
        with beginning:
            return model.encode(pixels, token_ids, mask, len(rows))

    def pixels_of(self, rows: Rows) -> Tensor:
        """(len(rows), height, width, 3) pixels on the device, as they were packed."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)]
        assert self.pixels is not None
        return self._moved(self.pixels[rows])

    def _moved(self, values: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":  # pinned, or the host would wait for the copy
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


class CachedInputs:
    """Features computed once with frozen backbones, read from memory-mapped arrays: what training heads needs.

    `pixels` are those that the image features were made of, where there are any: training does not read them.
    """

    def __init__(
        self,
        image: TokensAndPooled | None,
        text: TokensAndPooled | None,
        text_mask: npt.NDArray[np.bool_] | None,
        device: torch.device,
        pixels: PackedPixels | None = None,
    ) -> None:
        self.image = image
        self.text = text
        self.text_mask = text_mask
        self.device = device
        self.pixels = pixels

    def pixels_of(self, rows: Rows) -> Tensor:
        """(len(rows), height, width, 3) pixels on the device, as they were packed."""
        assert self.pixels is not None
        return torch.from_numpy(np.asarray(self.pixels[rows])).to(self.device)

    def n_values_per_row(self, model: FusionModel) -> int:
        """How many numbers `model` reads of one row."""
        used = [part for part, tower in ((self.image, model.image), (self.text, model.text)) if part and tower]
        return sum(int(np.prod(part[0 if model.uses_tokens else 1].shape[1:])) for part in used)

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        """The features of `rows`; `order` changes nothing, because cached features cannot be augmented."""
        features = no_features(len(rows), self.device)
        if model.image is not None and self.image is not None:
            tokens, pooled = self._read(self.image, rows, None, model.uses_tokens)
            features = replace(features, image_tokens=tokens, image_pooled=pooled)
        if model.text is not None and self.text is not None and self.text_mask is not None:
            length = max(1, int(self.text_mask[rows].sum(axis=1).max()))  # no longer than the batch needs
            tokens, pooled = self._read(self.text, rows, length, model.uses_tokens)
            mask = torch.from_numpy(self.text_mask[rows, :length]).to(self.device)
            features = replace(features, text_tokens=tokens, text_pooled=pooled, text_mask=mask)
        return features

    def _read(
        self, arrays: TokensAndPooled, rows: Rows, length: int | None, uses_tokens: bool
    ) -> tuple[Tensor, Tensor]:
        tokens, pooled = arrays
        _, n_tokens, dim = tokens.shape
        shape = (len(rows), n_tokens if length is None else length, dim if uses_tokens else 0)
        kept = _as_tensor(tokens)
        # To a GPU go the bytes as they are kept. On a CPU a row is copied and widened at once, not one after the other.
        read = torch.empty(shape, dtype=torch.float32 if self.device.type == "cpu" else kept.dtype)
        if uses_tokens:
            for copy, row in zip(read, rows.tolist(), strict=True):
                copy.copy_(kept[row, :length])
        return read.to(self.device, torch.float32), torch.from_numpy(pooled[rows]).to(self.device)


def _as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """`array`'s own memory as a tensor, to be read: PyTorch warns of files that are mapped for reading only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


Inputs = LiveInputs | CachedInputs


@torch.inference_mode()
def cache_image_features(
    backbone: ImageBackbone,
    pixels: PackedPixels,
    pixels_key: str,
    cache: Path,
    on_images: Callable[[int], None],
    tell: Tell = untold,
) -> TokensAndPooled:
    """Tokens and pooled vectors of all images, memory-mapped; computed only where the same ones are not there yet.

    `tell` is called where batches had to be halved. Raises `UserError` where one image does not fit in memory.
    """
    key = _key_of(backbone.model, backbone.config.model_dump_json(), pixels_key)

    def encode(rows: slice) -> Encoded:
        device = next(backbone.parameters()).device
        return backbone(torch.from_numpy(np.array(pixels[rows])).to(device))

    return _cache(cache / f"image-{key}", len(pixels), encode, on_images, "image features", tell)


@torch.inference_mode()
def cache_text_features(
    backbone: TextBackbone,
    texts: TokenisedTexts,
    cache: Path,
    on_texts: Callable[[int], None],
    tell: Tell = untold,
) -> TokensAndPooled:
    """Tokens and pooled vectors of all texts, memory-mapped; computed only where the same ones are not there yet.

    `tell` is called where batches had to be halved. Raises `UserError` where one text does not fit in memory.
    """
    content = hashlib.sha256(texts.token_ids.tobytes() + texts.mask.tobytes()).hexdigest()
    key = _key_of(backbone.model, backbone.config.model_dump_json(), content)

    def encode(rows: slice) -> Encoded:
        device = next(backbone.parameters()).device
        return backbone(
            torch.from_numpy(texts.token_ids[rows]).to(device), torch.from_numpy(texts.mask[rows]).to(device)
        )

    return _cache(cache / f"text-{key}", len(texts.token_ids), encode, on_texts, "text features", tell)


def _key_of(model: nn.Module, *parts: str) -> str:
    """16 hex digits over a model's weights and everything else that its features depend on."""
    return hashlib.sha256("\n".join([encoder_key(model), *parts]).encode()).hexdigest()[:16]


def _cache(
    folder: Path, n_rows: int, encode: Callable[[slice], Encoded], on_rows: Callable[[int], None], what: str, tell: Tell
) -> TokensAndPooled:
    tokens_path, pooled_path = folder / "tokens.npy", folder / "pooled.npy"
    if not pooled_path.is_file():  # written last

        def write(tokens_part: Path) -> None:
            ((_, first),) = in_batches(1, 1, encode, what)
            shape = (n_rows, *first.tokens.shape[1:])
            dtype = precision_of(shape)
            tokens = new_array(tokens_part, shape, dtype, f"the cache of {what}")
            pooled = np.empty((n_rows, shape[-1]), dtype=np.float32)
            for rows, encoded in in_batches(n_rows, _ROWS_AT_ONCE, encode, what, tell):
                tokens[rows] = encoded.tokens.float().cpu().numpy()
                pooled[rows] = encoded.pooled.float().cpu().numpy()
                if not np.isfinite(tokens[rows]).all():
                    raise UserError(
                        f"a frozen backbone gave features that {dtype.name} cannot hold (inf or nan)",
                        "train without --frozen, or choose another backbone",
                    )
                on_rows(rows.stop - rows.start)
            tokens.flush()
            np.save(pooled_part, pooled)

        folder.mkdir(parents=True, exist_ok=True)
        pooled_part = folder / f".pooled.{os.getpid()}.npy"  # another process may be about to write the same
        write_atomic(tokens_path, write)
        pooled_part.replace(pooled_path)
    return np.load(tokens_path, mmap_mode="r"), np.load(pooled_path, mmap_mode="r")
