"""What studies of given texts share: the labelled list of `train-features`, and the texts' features."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.errors import UserError
from builders.files import write_atomic
from train.backbones import load_text_backbone
from train.texts import tokenise

BATCH_SIZE = 64


def read_rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV. Raises `UserError` where it is not there, or lacks one of the columns."""
    if not file.is_file():
        raise UserError(f"{file.parent} holds no {file.name}", f"give a folder with {file.name} in it")
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        rows = list(reader)
    absent = [name for name in columns if name not in (reader.fieldnames or ())]
    if absent:
        raise UserError(f"{file} has no column {', '.join(absent)}", f"it needs {', '.join(columns)}")
    return rows


def write_list(file: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """Path, split, label and group of each photograph, as `train-features` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "split", "label", "group"))
    writer.writerows(rows)
    write_atomic(file, lambda part: part.write_text(text.getvalue(), encoding="utf-8"))
    return file


def write_text_features(file: Path, backbone: str, text_of: dict[str, str], max_tokens: int) -> Path:
    """An .npz of `path` and `text`, (n, dim): the mean over the tokens of each path's text; kept where it is there."""
    if file.is_file():
        return file
    encoder = load_text_backbone(backbone).eval()
    distinct = sorted(set(text_of.values()))
    tokens = tokenise(encoder.tokenizer, distinct, max_tokens)
    vectors: dict[str, Any] = {}
    with torch.inference_mode():
        for start in range(0, len(distinct), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            mask = torch.from_numpy(tokens.mask[part])
            said = encoder(torch.from_numpy(tokens.token_ids[part]), mask).tokens  # (batch, n, dim), zeros for padding
            pooled = said.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            vectors |= dict(zip(distinct[part], pooled.numpy(), strict=True))
    paths, rows = np.array(list(text_of)), np.stack([vectors[text] for text in text_of.values()])

    def save(part: Path) -> None:
        with part.open("wb") as handle:  # a handle: `savez` would add its ending to a name
            np.savez(handle, allow_pickle=False, path=paths, text=rows)

    write_atomic(file, save)
    return file
