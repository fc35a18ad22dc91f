"""annotate: answers that are asked for again because of their flags, and findings beside them."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.schemas import load_schema
from annotate.sessions import read_sessions
from builders.errors import UserError
from builders.files import read_json
from builders.index import index_images
from builders.run_folder import part_files, read_run

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)
N_PHOTOS = 12
CALM = {"text": "A plaque on the {key}."}
REFUSAL = "I cannot provide a description of this."
LOOP = " ".join(["I cannot provide a description."] * 4)  # a refusal and a repetition
FINDINGS = {
    "lesion_type": ["plaque"],
    "colour": ["red", "white"],
    "border": "well defined",
    "surface": ["scaly"],
    "distribution": "multiple",
    "site": "arm",
}


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for seed in range(N_PHOTOS):
        path = root / "train" / "anything" / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def keys(photos):
    return [row.image_sha256 for row in index_images(photos, 0)]


def config(photos, out, script, **changes):
    (out.parent / "script.json").write_text(json.dumps(script))
    engine_args = {"script": str(out.parent / "script.json"), **changes.pop("engine_args", {})}
    settings = {"images": str(photos), "out": out, "engine": "scripted", "engine_args": engine_args, "n_workers": 0}
    return AnnotateConfig(**{**settings, **changes})


def by_key(out):
    return {row.image_sha256: row for row in read_run(out).descriptions.values()}


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def facts_of(row):
    return (row.description, row.attempt, row.retries, row.temperature, row.flags)


def test_flagged_answers_are_asked_for_again_at_rising_temperatures_and_the_best_is_kept(photos, keys, tmp_path):
    texts = {
        keys[0]: ["", "Better."],
        keys[1]: ["", REFUSAL, "Good at last."],
        keys[2]: [REFUSAL, "", "..."],  # never better than the first
        keys[3]: [LOOP, "", REFUSAL],  # from two flags to one, and no further
        keys[4]: ["", "", "", "too late"],
    }
    script = {"": CALM, **{key: {"texts": each} for key, each in texts.items()}}
    summary = run(config(photos, tmp_path / "run", script))
    found = by_key(tmp_path / "run")
    assert facts_of(found[keys[0]]) == ("Better.", 2, 1, 0.3, ())
    assert facts_of(found[keys[1]]) == ("Good at last.", 3, 2, 0.6, ())
    assert facts_of(found[keys[2]]) == (REFUSAL, 3, 2, 0.0, ("refusal",))
    assert facts_of(found[keys[3]]) == ("", 3, 2, 0.3, ("empty",))
    assert facts_of(found[keys[4]]) == ("", 3, 2, 0.0, ("empty",))
    for key in keys[5:]:
        assert facts_of(found[key]) == (f"A plaque on the {key[:8]}.", 1, 0, 0.0, ())

    assert (summary.n_described, summary.n_retried, summary.n_mended) == (N_PHOTOS, 5 + 4, 2)
    assert summary.n_flagged == {"empty": 2, "refusal": 1}
    (session,) = read_sessions(tmp_path / "run")
    assert (session.n_described, session.n_retried) == (N_PHOTOS, 9)
    assert run(config(photos, tmp_path / "run", script)).n_described == 0  # the number of retries is used up


def test_a_run_that_samples_anyway_never_retries_at_a_lower_temperature(photos, keys, tmp_path):
    script = {"": CALM, keys[0]: {"texts": ["", "Better."]}, keys[1]: {"texts": ["", "", "Good."]}}
    run(config(photos, tmp_path / "run", script, temperature=0.5))
    found = by_key(tmp_path / "run")
    assert [found[key].temperature for key in keys[:3]] == [0.5, 0.6, 0.5]


def test_copies_are_asked_for_again_once_and_keep_one_text(photos, keys, tmp_path):
    (photos / "test" / "anything").mkdir(parents=True)
    shutil.copy(photos / "train" / "anything" / "000.png", photos / "test" / "anything" / "copy.png")
    summary = run(config(photos, tmp_path / "run", {"": CALM, keys[0]: {"texts": ["", "Better."]}}))
    assert (summary.n_retried, summary.n_mended) == (1, 2)
    rows = [row for row in read_run(tmp_path / "run").descriptions.values() if row.image_sha256 == keys[0]]
    assert [facts_of(row) for row in rows] == [("Better.", 2, 1, 0.3, ())] * 2


@pytest.mark.slow
def test_a_run_that_is_killed_between_retries_goes_on_with_the_next_one(photos, keys, tmp_path):
    out, texts = tmp_path / "run", ["", "", "", "Good at last."]
    script = {"": CALM, **{key: {"texts": texts} for key in keys[6:]}}
    settings = config(photos, out, script, retries=3, part_rows=1, engine_args={"seconds": 0.1})
    with subprocess.Popen([sys.executable, "-c", RUN, settings.model_dump_json()]) as process:
        while len(rows_on_disk(out)) < N_PHOTOS + 8:  # all have their first answer, and six their first retry
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    is_over = {row["image_sha256"] for row in rows_on_disk(out) if row["retries"] == 3}
    assert len(is_over) < 6  # how many were through is the machine's affair
    summary = run(settings)
    assert (summary.n_described, summary.n_mended) == (6 - len(is_over), 6)
    rows = rows_on_disk(out)
    assert sorted((row["image_sha256"], row["retries"]) for row in rows) == sorted(
        [(key, 0) for key in keys] + [(key, retry) for key in keys[6:] for retry in (1, 2, 3)]
    )
    for key in keys[6:]:
        assert facts_of(by_key(out)[key]) == ("Good at last.", 4, 3, 0.9, ())


def test_without_retries_answers_are_only_flagged(photos, keys, tmp_path):
    summary = run(config(photos, tmp_path / "run", {"": CALM, keys[0]: {"texts": ["", "Better."]}}, retries=0))
    assert (summary.n_retried, summary.n_flagged, summary.n_mended) == (0, {"empty": 1}, 0)
    assert facts_of(by_key(tmp_path / "run")[keys[0]]) == ("", 1, 0, 0.0, ("empty",))


@pytest.mark.parametrize(
    ("retry_flags", "n_retried"), [(("empty",), 2), (("truncated",), 2), (("truncated", "empty"), 4)]
)
def test_only_the_flags_that_were_named_are_asked_for_again(photos, keys, tmp_path, retry_flags, n_retried):
    script = {
        "": CALM,
        keys[0]: {"texts": ["", "", ""]},
        keys[1]: {"text": "A plaque of", "finish_reason": "length"},
        keys[2]: {"text": REFUSAL},
    }
    summary = run(config(photos, tmp_path / "run", script, retry_flags=retry_flags))
    assert summary.n_retried == n_retried
    assert summary.n_flagged == {"empty": 1, "refusal": 1, "truncated": 1}
    assert by_key(tmp_path / "run")[keys[2]].retries == 0


def test_a_flag_that_nobody_knows_is_refused(photos, tmp_path):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", {}, retry_flags=("boring",)))
    assert str(caught.value) == (
        "unknown flag 'boring'; choose one of: empty, names_label, not_english, prompt_echo, refusal, repetition,"
        " truncated"
    )


def test_findings_are_json_of_the_schema_beside_the_same_text(photos, keys, tmp_path):
    run(config(photos, tmp_path / "calm", {"": CALM}))
    script = {"": CALM, keys[3]: {**CALM, "findings": json.dumps(FINDINGS)}}
    summary = run(config(photos, tmp_path / "run", script, schema_name="derm"))
    assert summary.n_flagged == {}
    calm, found, schema = by_key(tmp_path / "calm"), by_key(tmp_path / "run"), load_schema("derm")
    for key in keys:
        assert found[key].description == calm[key].description
        assert calm[key].findings == ""
        assert schema.accepts(found[key].findings)
    assert json.loads(found[keys[3]].findings) == FINDINGS
    told = read_json(tmp_path / "run" / "run.json")["schema"]
    assert told == {name: getattr(schema, name) for name in ("name", "sha256", "prompt", "json_schema")}


def test_findings_that_are_not_of_the_schema_are_left_out_and_flagged_and_the_text_stays(photos, keys, tmp_path):
    garbage = {
        "no JSON": "red and scaly",
        "cut": json.dumps(FINDINGS)[:-5],
        "fenced": f"```json\n{json.dumps(FINDINGS)}\n```",
        "no object": "[]",
        "a word of its own": json.dumps({**FINDINGS, "site": "elbow"}),
        "a field too few": json.dumps({name: value for name, value in FINDINGS.items() if name != "site"}),
        "a field too many": json.dumps({**FINDINGS, "diagnosis": "psoriasis"}),
        "an empty list": json.dumps({**FINDINGS, "colour": []}),
        "not Unicode": "\ud800",
        "nothing": "",
    }
    victims = dict(zip(keys, garbage.values(), strict=False))
    script = {"": CALM, **{key: {**CALM, "findings": each} for key, each in victims.items()}}
    summary = run(config(photos, tmp_path / "run", script, schema_name="derm"))
    assert (summary.n_ok, summary.n_flagged, summary.n_retried) == (N_PHOTOS, {"no_findings": len(garbage)}, 0)
    found = by_key(tmp_path / "run")
    for key in keys:
        assert found[key].description == f"A plaque on the {key[:8]}."
        assert (found[key].findings == "") == (key in victims)
        assert found[key].flags == (("no_findings",) if key in victims else ())


def test_an_engine_that_dies_with_findings_under_way_spoils_no_other_row(photos, keys, tmp_path):
    script = {"": CALM, keys[2]: {"kill": True}, keys[5]: {"error": "out of luck"}, keys[7]: {**CALM, "late": True}}
    summary = run(config(photos, tmp_path / "run", script, schema_name="derm", data_parallel=2))
    assert summary.reasons == {"out of luck": 1, "the engine died of it twice: killed by SIGKILL": 1}
    found, schema = by_key(tmp_path / "run"), load_schema("derm")
    for key in set(keys) - {keys[2], keys[5]}:
        assert found[key].description == f"A plaque on the {key[:8]}."
        assert schema.accepts(found[key].findings)


def test_what_is_asked_for_again_has_findings_of_its_own(photos, keys, tmp_path):
    script = {"": CALM, keys[0]: {"texts": ["", "Better."], "findings": json.dumps(FINDINGS)}}
    run(config(photos, tmp_path / "run", script, schema_name="derm"))
    row = by_key(tmp_path / "run")[keys[0]]
    assert (row.description, json.loads(row.findings), row.retries) == ("Better.", FINDINGS, 1)


def test_findings_nested_without_end_are_not_accepted():
    schema = load_schema("derm")
    assert schema is not None
    assert not schema.accepts("[" * 200_000)
