"""builders/class_terms.py: what names a class is masked, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.class_terms import MASK, class_terms, mask_terms, words_of

TERMS = class_terms(["Acne and Rosacea Photos", "Psoriasis pictures", "Lupus and other Connective Tissue diseases"])


@pytest.mark.parametrize(
    ("text", "masked", "n_masked"),
    [
        ("Red papules, as in ACNE.", "Red papules, as in condition.", 1),
        ("Acne\n vulgaris;  lupus erythematosus!", "condition;  condition!", 2),
        ("psoriasis-like plaque, lupus's mark", "condition plaque, condition mark", 2),
        ("An acneiform rash on the tissued skin.", "An acneiform rash on the tissued skin.", 0),
        ("", "", 0),
    ],
)
def test_names_of_classes_are_masked_and_the_rest_stays(text, masked, n_masked):
    assert mask_terms(text, TERMS) == (masked, n_masked)


@given(st.lists(st.sampled_from([*sorted(TERMS), "red", "plaque", "-", ", ", "’s ", "tissue\n"]), max_size=20))
def test_no_term_is_left_and_masking_again_changes_nothing(pieces):
    once, _ = mask_terms(" ".join(pieces), TERMS)
    words = f" {' '.join(words_of(once))} "
    assert not any(f" {term} " in words for term in TERMS)
    assert mask_terms(once, TERMS) == (once, 0)


def test_the_mask_is_no_term_itself():
    assert MASK not in class_terms(["Skin condition", "Conditions of the nail"])
