"""The bundled model: its language, its files, its card, and (slow) how often it is right."""

import json
import re

import pytest
from safetensors import safe_open

from annotate.tiny_internvl import TINY_INTERNVL
from annotate.tiny_internvl.evaluate import HELD_OUT_SEED, Note, score, write_notes
from annotate.tiny_internvl.sentences import describe, read
from builders.sample.attributes import ATTRIBUTE_NAMES, MORPHOLOGIES, Attributes, all_attributes

N_PHOTOGRAPHS = 100  # of 600 in eval.json
RED = Attributes("few", "medium", "round", "red", "well_defined", "domed", "forearm", "light")


def test_a_note_reads_like_a_doctors():
    assert describe(RED) == (
        "On the forearm there are a few, round, red lesions of about 11 mm each. "
        "They are raised into a firm, smooth dome. The border is well defined. The surrounding skin is light."
    )


def test_every_note_says_every_attribute_and_no_two_notes_are_the_same():
    notes = {describe(attributes): attributes for attributes in all_attributes()}
    assert len(notes) == sum(1 for _ in all_attributes())
    for note, attributes in notes.items():
        assert read(note) == {name: getattr(attributes, name) for name in ATTRIBUTE_NAMES}


def test_no_note_names_its_class():
    stems = [name.removesuffix("e") for name in MORPHOLOGIES]  # papul: papule, papules, papular
    leak = re.compile("|".join(stems), re.IGNORECASE)
    assert not [note for note in map(describe, all_attributes()) if leak.search(note)]


def test_an_attribute_that_is_missing_or_said_in_two_ways_is_not_read():
    assert read("A photograph.") == {}
    assert "colour" not in read(describe(RED) + " It is brown.")
    assert read(describe(RED).replace("red", "reddish")).get("colour") is None


def test_the_score_counts_each_attribute_by_itself():
    half = score([Note(RED, describe(RED), "stop"), Note(RED, describe(RED).replace("red", "brown"), "stop")])
    assert half["accuracy"] == {name: 0.5 if name == "colour" else 1.0 for name in ATTRIBUTE_NAMES}
    assert (half["all_attributes"], half["word_for_word"], half["finished"]) == (0.5, 0.5, 1.0)


def test_the_weights_are_small():
    weights = TINY_INTERNVL / "model.safetensors"
    assert weights.stat().st_size <= 6_000_000
    with safe_open(weights, "np") as tensors:
        n_parameters = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118 - not a dict
    assert 1_000_000 <= n_parameters <= 3_000_000
    assert n_parameters == json.loads((TINY_INTERNVL / "training.json").read_text())["n_parameters"]


def test_the_checkpoint_is_the_format_that_both_engines_load():
    config = json.loads((TINY_INTERNVL / "config.json").read_text())
    assert config["architectures"] == ["InternVLForConditionalGeneration"]
    assert config["dtype"] == "float32"
    assert not [path.name for path in TINY_INTERNVL.iterdir() if path.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_the_card_states_the_measured_figures():
    card = (TINY_INTERNVL / "README.md").read_text(encoding="utf-8")
    measured = json.loads((TINY_INTERNVL / "eval.json").read_text())
    stated = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|$", card, re.MULTILINE))
    assert {name: float(share) for name, share in stated.items()} == measured["accuracy"]
    assert measured["engine"] == "vllm"
    assert min(measured["accuracy"].values()) >= 0.95
    assert "not" in card
    assert "medical model" in card


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # vLLM and torch deprecate parts of each other
def test_the_notes_are_true_on_photographs_never_seen_and_both_engines_write_the_same():
    pytest.importorskip("vllm")
    by_vllm, _ = write_notes(TINY_INTERNVL, "vllm", N_PHOTOGRAPHS, HELD_OUT_SEED + 1)
    assert min(score(by_vllm)["accuracy"].values()) >= 0.95
    by_transformers, _ = write_notes(TINY_INTERNVL, "transformers", N_PHOTOGRAPHS, HELD_OUT_SEED + 1)
    n_same = sum(a.text == b.text for a, b in zip(by_vllm, by_transformers, strict=True))
    assert n_same >= 0.98 * N_PHOTOGRAPHS
