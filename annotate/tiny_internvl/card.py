"""The model card of the bundled model, made from what was measured; no figure in it is written by hand."""

import json
from pathlib import Path
from typing import Any

from builders.files import write_atomic

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [internvl, toy, not-a-medical-model]
---
# tiny-internvl

A toy. It has InternVL's real architecture (`InternVLForConditionalGeneration`: vision tower, pixel shuffle, projector,
Qwen2 language model) with {n_parameters} parameters, so that images, engines, runs, datasets and classifiers can be
tried from end to end on a CPU in minutes, through vLLM and through transformers.

**What it is not:** a medical model of any kind. It has seen nothing but the drawings of `vl-dermnet sample`. On a real
photograph it says one of the same few thousand notes with the same confidence, and the note means nothing. Its notes
are written by a machine. Not for clinical use.

## Trained
{commands}

On {n_photographs} sample photographs, {minutes} minutes on two shared CPU cores: in each round first the vision tower
on their eight attributes, then the language model on the notes of `annotate/tiny_internvl/sentences.py`. Weights are
{dtype}; images are one tile of {side_px}×{side_px} px, {n_image_tokens} tokens.{notes}

## Measured
Share of notes that state each attribute rightly, on {n_images} photographs of a seed that training never used, greedy,
float32, {engine}:

    python -m annotate.tiny_internvl.evaluate --engine {engine_name} --images {n_images} --seed {eval_seed} --write

| attribute | accuracy |
|---|---|
{table}

A note gets all eight right in {all_attributes:.1%} of cases, and is the expected one word for word in
{word_for_word:.1%}. The same figures are in `eval.json`.
"""


def write_card(weights: Path) -> None:
    """Write README.md beside the weights from `eval.json`, `training.json` and `config.json` there."""
    measured, trained, config = (_read(weights / name) for name in ("eval.json", "training.json", "config.json"))
    vision = config["vision_config"]
    text = _CARD.format(
        n_parameters=f"{trained['n_parameters'] / 1e6:.2f} M",
        commands="\n".join(
            f"    python -m annotate.tiny_internvl.train --out DIR {done['options']}" for done in trained["rounds"]
        ),
        n_photographs=f"{sum(done['n_photographs'] for done in trained['rounds']):,}",
        notes="".join(f" {done['note']}" for done in trained["rounds"] if "note" in done),
        minutes=sum(done["minutes"] for done in trained["rounds"]),
        dtype=config["dtype"],
        side_px=vision["image_size"][0],
        n_image_tokens=config["image_seq_length"],
        n_images=measured["n_images"],
        engine=", ".join(f"{name} {version}" for name, version in measured["versions"].items()),
        engine_name=measured["engine"],
        eval_seed=measured["seed"],
        table="\n".join(f"| {name} | {share:.4f} |" for name, share in measured["accuracy"].items()),
        all_attributes=measured["all_attributes"],
        word_for_word=measured["word_for_word"],
    )
    write_atomic(weights / "README.md", lambda part: part.write_text(text, encoding="utf-8"))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
