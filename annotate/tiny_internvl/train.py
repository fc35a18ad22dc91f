"""Train the bundled model, from nothing or on from a checkpoint: render, learn to see, learn to speak, save."""

import argparse
import time
from pathlib import Path
from typing import Any

from annotate.prompts import load_prompt
from annotate.tiny_internvl.sentences import describe
from builders.files import read_json, write_json
from builders.sample.attributes import all_attributes
from builders.torch_repair import repair

TRAINING_FILE = "training.json"


def main() -> None:
    """Parse and train; progress goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m annotate.tiny_internvl.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=3800, help="optimizer steps, five sixths of them for seeing")
    parser.add_argument("--photographs", type=int, default=9000, help="sample photographs to learn from")
    parser.add_argument("--seed", type=int, default=1001, help="of photographs, weights and batches")
    parser.add_argument("--start", type=Path, default=None, help="checkpoint to go on from, with another seed")
    options = parser.parse_args()
    train(options.out, options.steps, options.photographs, options.seed, options.start)


def train(out: Path, n_steps: int, n_photographs: int, seed: int, start: Path | None) -> None:
    """Write a checkpoint to OUT that both `AutoProcessor`/`AutoModelForImageTextToText` and vLLM load."""
    repair()
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from annotate.tiny_internvl.architecture import build_model, build_processor, build_tokenizer
    from annotate.tiny_internvl.photographs import render_photographs
    from annotate.tiny_internvl.see import learn_to_see
    from annotate.tiny_internvl.speak import learn_to_speak

    options = f"--steps {n_steps} --photographs {n_photographs} --seed {seed}" + (" --start BEFORE" if start else "")
    started = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        tokenizer = build_tokenizer([*(describe(a) for a in all_attributes()), *[load_prompt("doctor").text] * 50])
        processor, model = build_processor(tokenizer), build_model(tokenizer)
        earlier: list[dict[str, Any]] = []
    else:
        processor, model = AutoProcessor.from_pretrained(start), AutoModelForImageTextToText.from_pretrained(start)
        earlier = read_json(start / TRAINING_FILE)["rounds"]
    photographs = render_photographs(processor, n_photographs, seed)
    n_seeing = n_steps * 5 // 6
    learn_to_see(model, photographs, n_seeing, generator)
    learn_to_speak(model, processor, photographs, n_steps - n_seeing, generator)
    model.eval().save_pretrained(out)
    processor.save_pretrained(out)
    write_json(
        out / TRAINING_FILE,
        {
            "n_parameters": sum(weight.numel() for weight in model.parameters()),
            "rounds": [
                *earlier,
                {
                    "options": options,
                    "n_photographs": n_photographs,
                    "minutes": round((time.monotonic() - started) / 60),
                },
            ],
        },
    )
    print(f"saved {out} after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
