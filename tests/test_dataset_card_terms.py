from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataset_card.statistics import spread
from dataset_card.terms import Terms, terms_of


def test_a_word_counts_once_per_description_and_words_without_content_do_not():
    assert terms_of("The skin shows a red, RED papule; well-defined, on the patient's arm. It is 3 cm.") == {
        "red",
        "papule",
        "well-defined",
        "patient's",
        "arm",
    }
    assert terms_of("שלום ρω é zone") == {"שלום", "zone"}


def test_frequent_and_typical_words_are_told_by_class():
    terms = Terms()
    for label, text in (
        ("acne", "red papule"),
        ("acne", "red pustule"),
        ("wart", "red rough"),
        ("wart", "rough papule"),
    ):
        terms.add(label, text)
    assert terms.most_frequent("acne", 2) == [("red", 2), ("papule", 1)]
    assert terms.most_typical(2) == {"acne": ["pustule", "red"], "wart": ["rough"]}
    assert terms.total() == Counter(red=3, papule=2, rough=2, pustule=1)


def test_one_class_alone_has_no_others_to_differ_from():
    terms = Terms()
    terms.add("acne", "red papule")
    assert terms.most_typical(1) == {"acne": ["papule"]}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
def test_a_spread_of_counts_is_that_of_the_numbers(numbers):
    ordered = sorted(numbers)
    told = spread(Counter(numbers))
    assert told == spread(numbers)
    assert (told.minimum, told.maximum) == (ordered[0], ordered[-1])
    middle = len(ordered) // 2
    assert told.median == (ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
    assert sum(number <= told.percentile_95 for number in numbers) >= 0.95 * len(numbers)


@given(st.text("ab'-_ 1.,\n\t\x1c\x00Z", max_size=40))
def test_plain_texts_are_cut_as_all_others(text):
    """A letter beyond ASCII has the other way taken; as a word of its own it changes no other word."""
    assert terms_of(f"{text} éé") == terms_of(text)
    assert terms_of(f"{text} ééé") == terms_of(text) | {"ééé"}
