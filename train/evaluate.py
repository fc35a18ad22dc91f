"""What is computed once a model is fitted: validation for its temperature, then test, once, for all that is told."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from builders.files import write_table
from train.attention_maps import attention_of, deletion_test, patch_grid, pools_by_attention
from train.backbones import ImageBackbone, TextBackbone
from train.calibration import fit_temperature, softmax
from train.config import TrainConfig
from train.data import Examples, Rows, Split
from train.features import Features
from train.given_tower import GivenFeatures
from train.inputs import Inputs
from train.loop import predict_logits
from train.memory import Tell, untold
from train.missing import without_image, without_text
from train.model import FusionModel
from train.pixel_deletion import N_IMAGES, pixel_deletion_test
from train.word_spans import WordSpans, word_spans

N_EXPLAINED = 128  # test rows, evenly spread, whose attention is kept and tested by deletion
N_HARDEST = 16  # and those that the model gets wrong most surely, to look at
CLASS_NAMES = b"class_names"  # in a file's schema metadata: the order of the logits
PIXELS = b"pixels"  # in that of attention/*: how a photograph becomes what the patches lie on

Logits = npt.NDArray[np.float32]  # (n, n_classes)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The temperature that fits validation best, and the logits of the test rows in the order of `split.test`."""

    temperature: float
    test_logits: Logits


def write_evaluation(
    folder: Path,
    name: str,
    model: FusionModel,
    inputs: Inputs,
    examples: Examples,
    split: Split,
    config: TrainConfig,
    refitted: FusionModel | None = None,
    tell: Tell = untold,
) -> Evaluation:
    """Evaluate a fitted model as the run `name` of the experiment in `folder`; nothing here changes the model.

    Batches have `config.micro_batch_size` rows, fewer where that does not fit in memory, of which `tell` is told.
    `refitted` is what was trained again on train and validation together: then it is that one which is tested, and
    `model`, which has not seen the validation rows, that gives the temperature. Test rows are read here and nowhere
    else, and nothing is chosen by them. Written are, each whole or absent:

    - `validation/NAME.parquet`, the logits of the validation rows;
    - `missing/NAME.parquet`, where the model reads both modalities: the test logits without text and without image;
    - `attention/NAME.parquet` and `deletion/NAME.parquet`, where the fusion pools by attention, over encoders' tokens.

    The test logits themselves are returned: their file says that a run is finished, and is for the caller to write.
    """
    validation_logits = predict_logits(model, inputs, split.validation, config.micro_batch_size, tell)
    write_table(folder / "validation" / f"{name}.parquet", logits_table(examples, split.validation, validation_logits))
    model = refitted or model
    test_logits = predict_logits(model, inputs, split.test, config.micro_batch_size, tell)
    if model.image is not None and model.text is not None:
        missing = _missing(model, inputs, examples, split.test, config.micro_batch_size, tell)
        write_table(folder / "missing" / f"{name}.parquet", missing)
        are_encoders = not isinstance(model.image, GivenFeatures) and not isinstance(model.text, GivenFeatures)
        if are_encoders and pools_by_attention(model):
            attention, deletion = _explain(
                model, inputs, examples, split.test, test_logits, config, int(name.rpartition("-")[2])
            )
            write_table(folder / "attention" / f"{name}.parquet", attention)
            write_table(folder / "deletion" / f"{name}.parquet", deletion)
    return Evaluation(fit_temperature(validation_logits, examples.labels[split.validation]), test_logits)


def logits_table(examples: Examples, rows: Rows, logits: Logits) -> pa.Table:
    """One row per image, in the order of `rows`; the schema's metadata name the classes in the order of the logits."""
    names = examples.class_names
    table: pa.Table = pa.Table.from_pydict(
        {
            "image_id": pa.array([examples.image_ids[row] for row in rows], pa.string()),
            "group": pa.array([examples.groups[row] for row in rows], pa.string()),
            "label": pa.array([names[examples.labels[row]] for row in rows], pa.string()),
            "predicted": pa.array([names[best] for best in logits.argmax(axis=1)], pa.string()),
            "logits": pa.array(list(logits), pa.list_(pa.float32())),
        }
    )
    return table.replace_schema_metadata({CLASS_NAMES: json.dumps(names)})


class _Without:
    """Inputs with one modality taken away."""

    def __init__(self, inputs: Inputs, modality: str) -> None:
        self.inputs = inputs
        self.modality = modality

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        return without(model, self.inputs.features(model, rows, order), self.modality)


def without(model: FusionModel, features: Features, modality: str) -> Features:
    """`features` of rows that all lack `text` or `image`, as modality dropout makes them in training."""
    every = torch.ones(len(features.text_mask), dtype=torch.bool, device=features.text_mask.device)
    return without_text(features, every) if modality == "text" else without_image(model, features, every)


def _missing(
    model: FusionModel, inputs: Inputs, examples: Examples, rows: Rows, batch_size: int, tell: Tell
) -> pa.Table:
    tables: list[pa.Table] = []
    for modality in ("text", "image"):
        logits = predict_logits(model, cast(Inputs, _Without(inputs, modality)), rows, batch_size, tell)
        table = logits_table(examples, rows, logits)
        tables.append(table.append_column("missing", pa.array([modality] * len(rows), pa.string())))
    return pa.concat_tables(tables)


@torch.inference_mode()
def _explain(
    model: FusionModel,
    inputs: Inputs,
    examples: Examples,
    rows: Rows,
    logits: Logits,
    config: TrainConfig,
    seed: int,
) -> tuple[pa.Table, pa.Table]:
    """Attention of a sample of the test rows and of the hardest, and the deletion tests over the sample."""
    sampled = _spread(rows, N_EXPLAINED)
    of_label = softmax(logits)[np.arange(len(rows)), examples.labels[rows]]
    is_wrong = logits.argmax(axis=1) != examples.labels[rows]
    painted = _spread(sampled, N_IMAGES)
    hardest = [rows[i] for i in np.argsort(of_label, kind="stable")[:N_HARDEST] if is_wrong[i]]
    attention: list[dict[str, Any]] = []
    deletion: list[dict[str, Any]] = []
    for row in sorted({*sampled.tolist(), *(int(each) for each in hardest)}):
        features = inputs.features(model, np.asarray([row]))
        _, image_weights, text_weights = attention_of(model, features)
        on_image, on_text = image_weights[0].float().cpu().numpy(), text_weights[0].float().cpu().numpy()
        grid = patch_grid(model.image, len(on_image)) if isinstance(model.image, ImageBackbone) else None
        words = _words(model, examples.texts[row], features, config)
        per_word, beside_words = ([], 0.0) if words is None else words.per_word(on_text)
        n_before = 0 if grid is None else grid.n_before
        attention.append(
            {
                "image_id": examples.image_ids[row],
                "is_sampled": bool(np.isin(row, sampled)),
                "patch_rows": 0 if grid is None else grid.rows,
                "patch_columns": 0 if grid is None else grid.columns,
                "patch_weights": on_image[n_before:],
                "class_token_weight": float(on_image[:n_before].sum()),
                "text": examples.texts[row],
                "word_starts": [] if words is None else [start for start, _ in words.spans],
                "word_ends": [] if words is None else [end for _, end in words.spans],
                "word_weights": per_word,
                "n_words_read": 0 if words is None else words.n_read,
                "special_token_weight": beside_words,
            }
        )
        if row in sampled:
            label = int(examples.labels[row])
            with _one_thread():
                tests = deletion_test(model, features, label, row, seed, grid, words)
            if row in painted and grid is not None and inputs.pixels is not None:
                pixels = inputs.pixels_of(np.asarray([row]))
                tests += pixel_deletion_test(model, features, pixels, on_image[n_before:], label, row, seed, grid)
            about = {"image_id": examples.image_ids[row], "group": examples.groups[row]}
            deletion += [{**about, **asdict(test)} for test in tests]
    geometry = model.image.pixels.model_dump_json() if isinstance(model.image, ImageBackbone) else "null"
    schema = _ATTENTION.with_metadata({PIXELS: geometry})
    return pa.Table.from_pylist(attention, schema), pa.Table.from_pylist(deletion, _DELETION)


def _spread(rows: Rows, n: int) -> Rows:
    """At most `n` of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(np.int64))]


@contextmanager
def _one_thread() -> Generator[None]:
    """For many tiny operations: 0.03 s per image against 0.30 s with two threads on 2 busy cores, 768 dimensions."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _words(model: FusionModel, text: str, features: Features, config: TrainConfig) -> WordSpans | None:
    """The words of `text`, if it is the text that the model reads: a control may have put another one in its place."""
    if not isinstance(model.text, TextBackbone) or not text.strip():
        return None
    words = word_spans(model.text.tokenizer, text, config.max_text_tokens)
    return words if words is not None and len(words.word_of_token) == int(features.text_mask.sum()) else None


_WEIGHTS = pa.list_(pa.float32())
_PLACES = pa.list_(pa.int32())
_ATTENTION = pa.schema(
    {
        "image_id": pa.string(),
        "is_sampled": pa.bool_(),
        "patch_rows": pa.int32(),
        "patch_columns": pa.int32(),
        "patch_weights": _WEIGHTS,
        "class_token_weight": pa.float32(),
        "text": pa.string(),
        "word_starts": _PLACES,
        "word_ends": _PLACES,
        "word_weights": _WEIGHTS,
        "n_words_read": pa.int32(),
        "special_token_weight": pa.float32(),
    }
)
_DELETION = pa.schema(
    {
        "image_id": pa.string(),
        "group": pa.string(),
        "modality": pa.string(),
        "percent": pa.int32(),
        "before": pa.float64(),
        "without_top": pa.float64(),
        "without_random": pa.float64(),
    }
)
