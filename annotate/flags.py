"""What is suspicious about a description, found by rule: a dict of rules. A flag never changes the text."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from builders.class_terms import words_of

ECHO_WORDS = 8  # so many words of the prompt in a row are no accident
LOOP_TIMES = 4  # a phrase said so often in a row is a loop
SENTENCE_TIMES = 3  # a sentence of some length said so often is one too
ENGLISH_SHARE = 0.12  # of words; English prose has about 0.4, French or Spanish below 0.05
# The commonest English words that are rare or absent in other languages written in Latin letters.
ENGLISH = frozenset(
    {
        "the",
        "of",
        "and",
        "is",
        "are",
        "with",
        "on",
        "in",
        "an",
        "it",
        "this",
        "that",
        "there",
        "has",
        "have",
        "which",
        "appears",
        "be",
        "to",
        "from",
        "by",
        "or",
        "as",
        "at",
        "no",
        "not",
    }
)
REFUSAL = re.compile(
    r"\b(i(?: a|')m (?:sorry|unable|not able)|i (?:can(?:no|')t|can not|won't|will not) (?:provide|help|assist|describe"
    r"|diagnose|comment|analy[sz]e|offer|give|fulfil"
    # what a careful observer may say of a finding, too: only of the photograph itself, or of who is in it
    r"|(?:see|view|identify) (?:(?:the|this|that|your|any|an) )?(?:image|photo|picture|attachment|people|the person))"
    r"|as an ai\b|i do(?: not|n't) have the ability|unable to (?:assist|help|comply|provide a description))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One description with what its rules may look at. `class_terms` are lower-case names of all classes of the set."""

    text: str
    finish_reason: str
    prompt: str
    class_terms: frozenset[str]


def flags_of(answered: Answered) -> tuple[str, ...]:
    """The names of the rules that the description breaks, in alphabetical order."""
    return tuple(name for name, rule in sorted(FLAGS.items()) if rule(answered))


def _is_empty(answered: Answered) -> bool:
    return not any(character.isalpha() for character in answered.text)


def _is_truncated(answered: Answered) -> bool:
    return answered.finish_reason == "length"


def _is_refusal(answered: Answered) -> bool:
    return REFUSAL.search(answered.text[:300].replace("’", "'")) is not None


def _is_repetitive(answered: Answered) -> bool:
    """A phrase of up to 12 words `LOOP_TIMES` times in a row, or a sentence of 4 or more `SENTENCE_TIMES` times."""
    if answered.finish_reason == "repetition":
        return True
    words = words_of(answered.text)
    for size in range(1, 13):
        in_a_row = 0
        for place in range(size, len(words)):
            in_a_row = in_a_row + 1 if words[place] == words[place - size] else 0
            if in_a_row == size * (LOOP_TIMES - 1):
                return True
    sentences = Counter(" ".join(words_of(part)) for part in re.split(r"[.!?\n]+", answered.text))
    return any(times >= SENTENCE_TIMES and sentence.count(" ") >= 3 for sentence, times in sentences.items())


def _is_not_english(answered: Answered) -> bool:
    """Foreign letters, or a text of twelve words or more with hardly a function word of English."""
    letters = [character for character in answered.text if character.isalpha()]
    if letters and sum(character.isascii() for character in letters) < 0.8 * len(letters):
        return True
    words = words_of(answered.text)
    return len(words) >= 12 and sum(word in ENGLISH for word in words) < ENGLISH_SHARE * len(words)


def _names_label(answered: Answered) -> bool:
    text = " " + " ".join(words_of(answered.text)) + " "
    return any(f" {term} " in text for term in answered.class_terms)


def _echoes_prompt(answered: Answered) -> bool:
    prompt, words = words_of(answered.prompt), words_of(answered.text)
    said = {tuple(words[place : place + ECHO_WORDS]) for place in range(len(words) - ECHO_WORDS + 1)}
    return any(tuple(prompt[place : place + ECHO_WORDS]) in said for place in range(len(prompt) - ECHO_WORDS + 1))


FLAGS: dict[str, Callable[[Answered], bool]] = {
    "empty": _is_empty,
    "names_label": _names_label,
    "not_english": _is_not_english,
    "prompt_echo": _echoes_prompt,
    "refusal": _is_refusal,
    "repetition": _is_repetitive,
    "truncated": _is_truncated,
}
