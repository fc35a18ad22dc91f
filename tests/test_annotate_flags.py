"""Flags: each rule finds what it is for and lets an ordinary description through."""

import time

import pytest

from annotate.flags import FLAGS, Answered, flags_of
from builders.class_terms import class_terms

PROMPT = "You are a doctor. Please describe the image from a medical perspective in an objective manner."
ORDINARY = (
    "A solitary, round, brown lesion of about 6 mm is seen on the forearm. The surface is smooth and the border is"
    " well defined. The surrounding skin shows no erythema and no scale."
)


def flags(text, finish_reason="stop", labels=("Acne and Rosacea Photos", "Psoriasis pictures Lichen Planus")):
    return flags_of(Answered(text, finish_reason, PROMPT, class_terms(labels)))


def test_an_ordinary_description_has_no_flag():
    assert flags(ORDINARY) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("empty",)),
        (" \n.!", ("empty",)),
        ("I'm sorry, but I cannot provide medical advice.", ("refusal",)),
        ("I’m sorry, but I can’t assist with that.", ("refusal",)),
        ("I can’t view this image.", ("refusal",)),
        ("I cannot see any photographs here.", ("refusal",)),
        ("I cannot identify people in images.", ("refusal",)),
        ("I won't identify the person in the photo.", ("refusal",)),
        ("As an AI, I do not look at images.", ("refusal",)),
        ("I am unable to describe this image.", ("refusal",)),
        ("The lesion is red red red red red on the arm.", ("repetition",)),
        ("It is red and scaly, it is red and scaly, it is red and scaly, it is red and scaly", ("repetition",)),
        (
            "The skin has a red area. It is flat. The skin has a red area. Yes. The skin has a red area.",
            ("repetition",),
        ),
        ("On voit une lésion brune et arrondie du bras, sans croûte ni squame visible.", ("not_english",)),
        ("手臂上有一个圆形的棕色病变", ("not_english",)),
        ("The image is consistent with psoriasis of the elbow.", ("names_label",)),
        ("The image is typical of acne vulgaris on the cheek.", ("names_label",)),
        ("Please describe the image from a medical perspective: the lesion is red.", ("prompt_echo",)),
    ],
)
def test_each_rule_finds_what_it_is_for(text, expected):
    assert flags(text) == expected


def test_what_the_engine_said_counts_too():
    assert flags(ORDINARY, finish_reason="length") == ("truncated",)
    assert flags(ORDINARY, finish_reason="repetition") == ("repetition",)


@pytest.mark.parametrize(
    "text",
    [
        "The deeper layers cannot be described from the photograph, and the border is not sharp.",
        "I cannot see any scale; a red plaque with the well defined border is on the arm.",
        "I can't identify an individual papule in the plaque, which is on the arm.",
    ],
)
def test_a_careful_sentence_is_no_refusal(text):
    assert flags(text) == ()


def test_words_of_a_class_are_found_whole_only():
    terms = class_terms(["Nail Fungus and other Nail Disease", "Warts Molluscum and other Viral Infections"])
    assert {"nail", "fungus", "warts", "wart", "molluscum", "viral", "onychomycosis"} <= terms
    assert not {"and", "other", "disease", "infections"} & terms
    assert flags_of(Answered("The towards of it is a straightwart.", "stop", PROMPT, terms)) == ()


def test_a_very_long_text_is_checked_in_no_time():
    text = " ".join(f"word{number} is" for number in range(20_000))
    began = time.monotonic()
    flags(text)
    assert time.monotonic() - began < 30  # a square in its length would take hours
    assert set(FLAGS) >= {"empty", "truncated", "repetition", "refusal", "not_english", "names_label", "prompt_echo"}
