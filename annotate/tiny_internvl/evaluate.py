"""How often the bundled model's notes are true: on photographs it has never seen, greedy, through a real engine."""

import argparse
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from annotate.engines import EngineConfig, Feed, Request, load_engine
from annotate.models import resolve_model
from annotate.prompts import load_prompt
from annotate.tiny_internvl import TINY_INTERNVL
from annotate.tiny_internvl.sentences import describe, read
from builders.files import write_json
from builders.sample.attributes import ATTRIBUTE_NAMES, Attributes
from builders.sample.photograph import render_photograph

EVAL_FILE = "eval.json"
HELD_OUT_SEED = 20_240  # no training set begins from it
MAX_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Note:
    """What the model said of one photograph, beside what there is to see."""

    truth: Attributes
    text: str
    finish_reason: str


def main() -> None:
    """Parse, measure, print JSON; `--write` also keeps it beside the weights, where the model card reads it."""
    parser = argparse.ArgumentParser(prog="python -m annotate.tiny_internvl.evaluate", description=__doc__)
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the photographs; not the training's")
    parser.add_argument("--weights", type=Path, default=TINY_INTERNVL)
    parser.add_argument("--batch", type=int, default=None, help="images in flight")
    parser.add_argument("--write", action="store_true", help="write eval.json and the model card beside the weights")
    options = parser.parse_args()
    started = time.monotonic()
    notes, versions = write_notes(options.weights, options.engine, options.images, options.seed, options.batch)
    figures = {
        "engine": options.engine,
        "versions": versions,
        "dtype": "float32",
        "seed": options.seed,
        **score(notes),
    }
    print(json.dumps({**figures, "seconds": round(time.monotonic() - started)}, indent=2))
    if options.write:
        from annotate.tiny_internvl.card import write_card

        write_json(options.weights / EVAL_FILE, figures)
        write_card(options.weights)


def write_notes(
    weights: Path, engine_name: str, n_images: int, seed: int, batch: int | None = None
) -> tuple[list[Note], dict[str, str]]:
    """The model's notes on `n_images` photographs of `seed`, in their order, and the versions of what ran."""
    config = EngineConfig(
        model=resolve_model(str(weights), None, trust_remote_code=False),
        prompt=load_prompt("doctor").text,
        max_tokens=MAX_TOKENS,
        dtype="float32",
        max_in_flight=batch,
        engine_args={"max_model_len": 1024} if engine_name == "vllm" else {},
    )
    engine = load_engine(engine_name, config)
    facts = engine.start()
    truths: dict[str, Attributes] = {}
    feed = Feed(_requests(n_images, seed, truths), ahead=16)
    answers = {answer.key: answer for answer in engine.describe(feed)}
    feed.close()
    engine.close()
    return [Note(truth, answers[key].text, answers[key].finish_reason) for key, truth in truths.items()], facts.versions


def score(notes: list[Note]) -> dict[str, Any]:
    """The share of notes that state each attribute rightly, and of those that are right word for word."""
    n_right = dict.fromkeys(ATTRIBUTE_NAMES, 0)
    for note in notes:
        stated = read(note.text)
        for name in ATTRIBUTE_NAMES:
            n_right[name] += stated.get(name) == getattr(note.truth, name)
    return {
        "n_images": len(notes),
        "accuracy": {name: round(n / len(notes), 4) for name, n in n_right.items()},
        "all_attributes": round(sum(_is_true(note) for note in notes) / len(notes), 4),
        "word_for_word": round(sum(note.text.strip() == describe(note.truth) for note in notes) / len(notes), 4),
        "finished": round(sum(note.finish_reason == "stop" for note in notes) / len(notes), 4),
    }


def _is_true(note: Note) -> bool:
    stated = read(note.text)
    return all(stated.get(name) == getattr(note.truth, name) for name in ATTRIBUTE_NAMES)


def _requests(n_images: int, seed: int, truths: dict[str, Attributes]) -> Iterator[Request]:
    for number in range(n_images):
        photograph = render_photograph(seed, number)
        truths[str(number)] = photograph.attributes
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(photograph.jpeg))).convert("RGB")
        yield Request(str(number), image)


if __name__ == "__main__":
    main()
