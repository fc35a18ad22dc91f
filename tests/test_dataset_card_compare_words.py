"""What a comparison counts in a text: words, attributes, class names."""

from collections import Counter

import pytest

from dataset_card.compare.attributes import found_in, said_in
from dataset_card.compare.leaks import ClassWords
from dataset_card.compare.page import pieces
from dataset_card.compare.words import jaccard, token_f1, typical_words, words_of


def test_words_that_the_other_text_lacks_are_set_apart():
    assert pieces("A red, well-defined papule.", "Papule: a red one") == [
        ("A red, ", False),
        ("well", True),
        ("-", False),
        ("defined", True),
        (" papule.", False),
    ]
    text = "Naïve\n\nlines  שלום 5 mm"
    assert "".join(piece for piece, _ in pieces(text, "")) == text
    assert pieces("", "x") == []


def test_token_f1_and_jaccard_of_known_texts():
    a, b = Counter(["red", "red", "papule"]), Counter(["red", "plaque"])
    assert token_f1(a, b) == pytest.approx(2 * 1 / 5)
    assert jaccard(frozenset(a), frozenset(b)) == pytest.approx(1 / 3)
    assert token_f1(Counter(), Counter()) == jaccard(frozenset(), frozenset()) == 1.0
    assert token_f1(a, Counter()) == jaccard(frozenset(a), frozenset()) == 0.0
    assert words_of("The patient's Well-defined, 5 mm LESION") == [
        "the",
        "patient's",
        "well",
        "defined",
        "5",
        "mm",
        "lesion",
    ]


def test_typical_words_are_those_that_one_side_uses_more():
    a = Counter({"the": 1000, "erythematous": 50, "same": 10})
    b = Counter({"the": 1000, "red": 50, "same": 10})
    of_a, of_b = typical_words(a, b, 1)
    assert [(each.word, each.n_a, each.n_b) for each in of_a + of_b] == [("erythematous", 50, 0), ("red", 0, 50)]
    assert of_a[0].z == pytest.approx(-of_b[0].z)
    assert typical_words(Counter(), Counter(), 5) == ([], [])
    assert typical_words(Counter({"x": 3}), Counter({"x": 2}), 5) == ([], [])


@pytest.mark.parametrize(
    ("text", "attribute", "values"),
    [
        ("An erythematous, violaceous plaque.", "colour", {"red", "purple"}),
        ("A flesh-colored bump", "colour", {"skin-coloured"}),
        ("Well-defined but irregular borders.", "border", {"well defined", "irregular"}),
        ("The margins are irregular", "border", {"irregular"}),
        ("ill-demarcated", "border", {"poorly defined"}),
        ("No scaling. Crusted.", "surface", {"crusted"}),
        ("a non-scaly, not visibly ulcerated surface; shiny", "surface", {"shiny"}),
        ("There is no pain. Red patches", "colour", {"red"}),
        ("on the back of the hand", "site", {"hand"}),
        ("on the back", "site", {"back"}),
        ("an infrared backpack, blackboard", "colour", set()),
        ("Scarred", "lesion_type", {"scar"}),
        ("", "colour", set()),
    ],
)
def test_attributes_are_read_from_words_in_their_clause(text, attribute, values):
    assert said_in(text)[attribute] == values


def test_findings_are_read_only_where_they_are_an_object_of_words():
    assert found_in('{"colour": ["red", "pink"], "border": "raised"}') == {
        "colour": {"red", "pink"},
        "border": {"raised"},
    }
    assert found_in("") is found_in("{damaged") is found_in("[1]") is None


def test_a_class_is_named_by_its_telling_words():
    words = ClassWords(
        ["Warts Molluscum and other Viral Infections", "Psoriasis pictures Lichen Planus and related diseases"]
    )
    assert words.named_in("A typical wart.", "Warts Molluscum and other Viral Infections") == "own"
    assert words.named_in("Psoriasis?", "Warts Molluscum and other Viral Infections") == "other"
    assert words.named_in("A skin disease with other infections", "Warts Molluscum and other Viral Infections") == ""
    assert words.named_in("A wart", "") == "other"
