"""annotate: first answers that are wrong stop a run before it has written anything."""

import os
import re

import pytest

from annotate.job import run
from annotate.sessions import read_sessions
from builders.errors import UserError
from builders.index import index_images
from builders.run_folder import part_files
from tests.supervised import (
    N_PHOTOS,
    Told,
    calm_text,
    config,
    engines_of,
    make_photos,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), N_PHOTOS)


@pytest.fixture(scope="module")
def keys(photos):
    """sha256 of every image, in the order in which they are asked about."""
    return [row.image_sha256 for row in index_images(photos, 0)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"error": "no luck"}, "the first 4 images all failed: no luck"),
        (
            {"text": " \n", "finish_reason": "stop"},
            "the first 4 answers are empty (finish_reason stop); is the chat template the model's own?",
        ),
    ],
)
def test_first_answers_that_are_all_wrong_stop_the_run_before_a_row_is_written(photos, tmp_path, entry, message):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", script={"": entry}))
    assert str(caught.value) == f"{message}\n  fix: mend it, or let it go on as it is with --no-preflight"
    assert part_files(tmp_path / "run") == []
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not engines_of(os.getpid())

    mended = {"script": {"": entry}, "preflight": False, "max_tokens": 17}  # other settings: nothing was written yet
    summary = run(config(photos, tmp_path / "run", **mended))
    assert (summary.n_failed, summary.n_ok) == ((N_PHOTOS, 0) if "error" in entry else (0, N_PHOTOS))


def test_first_answers_that_are_all_cut_are_a_warning(photos, tmp_path):
    told = Told()
    script = {"": {"text": "A lesion of", "finish_reason": "length"}}
    summary = run(config(photos, tmp_path / "run", script=script, max_tokens=3), progress=told)
    assert "warning: all of them were cut at 3 tokens; --max-tokens gives them more" in told.messages
    assert summary.n_flagged == {"truncated": N_PHOTOS}


def test_a_context_that_cuts_the_first_answers_stops_the_run(photos, tmp_path):
    script = {"": {"text": "A lesion of", "finish_reason": "length"}}
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", script=script, max_tokens=5))
    assert str(caught.value) == (
        "the context is too short: beside prompts of up to 0 tokens, answers were cut at 3 of the 5 tokens that"
        " --max-tokens allows\n  fix: a larger context (vLLM: --engine-arg max_model_len=5), fewer tokens per image"
        " (--max-dynamic-patch 1), --max-tokens 3 for answers of that length, or --no-preflight"
    )
    assert part_files(tmp_path / "run") == []


def test_the_first_answers_and_the_prompt_are_shown(photos, keys, tmp_path):
    told = Told()
    run(config(photos, tmp_path / "run", script={keys[1]: {"error": "no luck"}}, prompt="doctor"), progress=told)
    shown = [message for message in told.messages if message.startswith("first look: ")]
    assert shown[:2] == [
        f"first look: {keys[0][:8]}: 0 tokens in, 6 out, stop: {calm_text(keys[0])}",
        f"first look: {keys[1][:8]}: no luck",
    ]
    assert len(shown) == 4
    assert any(re.fullmatch(r"prompt, as scripted renders it \(sha256 [0-9a-f]{16}\):", told) for told in told.messages)


def test_a_run_that_holds_answers_is_never_stopped_by_its_first_new_ones(photos, keys, tmp_path):
    failing = {key: {"error": "no luck"} for key in keys[6:]}
    assert run(config(photos, tmp_path / "run", script=failing)).n_ok == 6
    summary = run(config(photos, tmp_path / "run", script=failing))
    assert (summary.n_ok, summary.n_failed) == (6, N_PHOTOS - 6)
    assert [session.n_to_do for session in read_sessions(tmp_path / "run")] == [N_PHOTOS, N_PHOTOS - 6]
