"""Second half of the training: the language model learns to put what the vision tower sees into a note.

The vision tower rests. Each step sees a batch of photographs, each turned anew, so the language model also meets
image tokens of views that the tower was not trained to the end on.
"""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotate.prompts import load_prompt
from annotate.tiny_internvl.photographs import Photographs
from annotate.tiny_internvl.see import batches, descend, make_optimizers, set_lr, turn_and_mirror
from annotate.tiny_internvl.sentences import describe

_BATCH = 32


def learn_to_speak(
    model: Any,  # InternVLForConditionalGeneration, whose stubs do not know its parts
    processor: Any,
    photographs: Photographs,
    n_steps: int,
    generator: torch.Generator,
) -> None:
    """Train the language model in place on the notes alone, not on the prompt; prints a line per 100 steps."""
    prompt_ids, notes = _tokens(processor, photographs)
    is_image = prompt_ids == model.config.image_token_id
    text = model.model.language_model
    words = text.get_input_embeddings().weight  # a table, not a map, and tied to lm_head
    weights = list(text.parameters())
    matrices = [weight for weight in weights if weight.ndim == 2 and weight is not words]
    optimizers = make_optimizers(matrices, [weight for weight in weights if weight.ndim != 2] + [words])
    started = time.monotonic()
    model.train()
    for step, rows in enumerate(batches(len(photographs), _BATCH, n_steps, generator)):
        set_lr(optimizers, step, n_steps)
        with torch.no_grad():
            (pixels,) = turn_and_mirror([photographs.pixel_values(rows)], generator)
            image_tokens = model.model.get_image_features(pixel_values=pixels).pooler_output
        wanted = notes[rows]  # (batch, longest note), -100 after its end
        wanted = wanted[:, : int((wanted >= 0).sum(1).max())]
        spoken = torch.cat([prompt_ids.expand(len(rows), -1), wanted.clamp(min=0)[:, :-1]], dim=1)
        embedded = text.get_input_embeddings()(spoken)
        embedded[:, : len(prompt_ids)][:, is_image] = image_tokens
        hidden = text(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, len(prompt_ids) - 1 :])  # what follows the prompt and each token of the note
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
        descend(optimizers, loss, weights)
        if (step + 1) % 100 == 0:
            said = (logits.argmax(-1) == wanted) | (wanted == -100)
            seconds = time.monotonic() - started
            whole = said.all(dim=1).float().mean().item()
            print(
                f"speak {step + 1}/{n_steps}: loss {loss.item():.4f}, whole notes {whole:.3f}, {seconds:.0f} s",
                flush=True,
            )


def _tokens(processor: Any, photographs: Photographs) -> tuple[Tensor, Tensor]:
    """The prompt as both engines send it, (tokens,), and the notes with their end token, (n, longest), then -100."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": load_prompt("doctor").text}]}]
    rendered = processor.apply_chat_template(turn, add_generation_prompt=True)
    one_image = photographs.pixels[0].permute(1, 2, 0).numpy()
    prompt_ids = processor(text=[rendered], images=[one_image], return_tensors="pt")["input_ids"][0]
    tokenizer = processor.tokenizer
    notes = [tokenizer(describe(a))["input_ids"] + [tokenizer.eos_token_id] for a in photographs.attributes]
    padded = torch.full((len(notes), max(map(len, notes))), -100)
    for row, note in zip(padded, notes, strict=True):
        row[: len(note)] = torch.tensor(note)
    return prompt_ids, padded
