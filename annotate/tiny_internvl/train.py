"""Train the bundled model from nothing: render, learn to see, learn to speak, save."""

import argparse
import time
from pathlib import Path

from annotate.prompts import load_prompt
from annotate.tiny_internvl.sentences import describe
from builders.files import write_json
from builders.sample.attributes import all_attributes
from builders.torch_repair import repair


def main() -> None:
    """Parse and train; progress goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m annotate.tiny_internvl.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=4500, help="optimizer steps, two thirds of them for seeing")
    parser.add_argument("--photographs", type=int, default=9000, help="sample photographs to learn from")
    parser.add_argument("--seed", type=int, default=1001, help="of photographs, weights and batches")
    options = parser.parse_args()
    train(options.out, options.steps, options.photographs, options.seed)


def train(out: Path, n_steps: int, n_photographs: int, seed: int) -> None:
    """Write a checkpoint to OUT that both `AutoProcessor`/`AutoModelForImageTextToText` and vLLM load."""
    repair()
    import torch

    from annotate.tiny_internvl.architecture import build_model, build_processor, build_tokenizer
    from annotate.tiny_internvl.photographs import render_photographs
    from annotate.tiny_internvl.see import learn_to_see
    from annotate.tiny_internvl.speak import learn_to_speak

    options = f"--steps {n_steps} --photographs {n_photographs} --seed {seed}"
    started = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = build_tokenizer([*(describe(a) for a in all_attributes()), *[load_prompt("doctor").text] * 50])
    processor, model = build_processor(tokenizer), build_model(tokenizer)
    photographs = render_photographs(processor, n_photographs, seed)
    n_seeing = n_steps * 2 // 3
    learn_to_see(model, photographs, n_seeing, generator)
    learn_to_speak(model, processor, photographs, n_steps - n_seeing, generator)
    model.eval().save_pretrained(out)
    processor.save_pretrained(out)
    write_json(
        out / "training.json",
        {
            "command": f"python -m annotate.tiny_internvl.train --out DIR {options}",
            "steps": n_steps,
            "n_photographs": n_photographs,
            "seed": seed,
            "n_parameters": sum(weight.numel() for weight in model.parameters()),
        },
    )
    print(f"saved {out} after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
