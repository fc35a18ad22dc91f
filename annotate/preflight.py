"""A look at the first answers, before anything is written: is the image in the prompt, does the model say anything?"""

import hashlib
from collections.abc import Callable

from annotate.engines import Answer, EngineFacts
from builders.errors import UserError

N_FIRST = 4
SHOWN = 240  # characters of an answer or a prompt
FIX = "mend it, or let it go on as it is with --no-preflight"


def check_first_answers(answers: list[Answer], facts: EngineFacts, max_tokens: int, say: Callable[[str], None]) -> None:
    """Show the first answers and how the prompt was rendered.

    Raises `UserError` where `N_FIRST` images have the same trouble: refused by the engine, no image token, no word, no
    room for an answer of `max_tokens`.
    """
    rendered = facts.rendered_prompt
    say(f"prompt, as {facts.engine_id} renders it (sha256 {hashlib.sha256(rendered.encode()).hexdigest()[:16]}):")
    say(f"  {_short(rendered)}")
    for answer in answers:
        if answer.error:
            say(f"first look: {answer.key[:8]}: {answer.error}")
        else:
            of_image = f" ({answer.n_image_tokens} of the image)" if answer.n_image_tokens else ""
            counts = f"{answer.n_prompt_tokens} tokens in{of_image}, {answer.n_output_tokens} out"
            say(f"first look: {answer.key[:8]}: {counts}, {answer.finish_reason}: {_short(answer.text)}")
    if len(answers) < N_FIRST:
        return
    if all(answer.error and not answer.is_unusable for answer in answers):
        raise UserError(f"the first {N_FIRST} images all failed: {answers[0].error}", FIX)
    answered = [answer for answer in answers if not answer.error]
    if facts.tells_image_tokens and answered and not any(answer.n_image_tokens for answer in answered):
        raise UserError("no image is in the prompts: the first answers were given to 0 image tokens", FIX)
    if len(answered) == N_FIRST and not any(answer.text.strip() for answer in answered):
        raise UserError(
            f"the first {N_FIRST} answers are empty (finish_reason {answered[0].finish_reason}); is the chat template"
            " the model's own?",
            FIX,
        )
    if len(answered) == N_FIRST and all(answer.finish_reason == "length" for answer in answered):
        most = max(answer.n_output_tokens for answer in answered)
        if 0 < most < max_tokens:
            longest = max(answer.n_prompt_tokens for answer in answered)
            raise UserError(
                f"the context is too short: beside prompts of up to {longest} tokens, answers were cut at {most} of the"
                f" {max_tokens} tokens that --max-tokens allows",
                f"a larger context (vLLM: --engine-arg max_model_len={longest + max_tokens}), fewer tokens per image"
                f" (--max-dynamic-patch 1), --max-tokens {most} for answers of that length, or --no-preflight",
            )
        say(f"warning: all of them were cut at {max_tokens} tokens; --max-tokens gives them more")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
