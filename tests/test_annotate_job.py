"""annotate: every image exactly once, whatever dies; every mistake named. All with the scripted engine."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotate.config import AnnotateConfig, parse_engine_args
from annotate.job import run
from builders.errors import UserError
from builders.files import read_json
from builders.index import index_images, write_index
from builders.run_folder import part_files, read_run
from builders.schema import DESCRIPTION_SCHEMA

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)

NO_MODEL = (
    "no such folder, and not a Hub id like OpenGVLab/InternVL3-8B-hf\n"
    "  fix: one of: tiny-internvl, a folder with config.json, or OWNER/NAME"
)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for seed in range(12):
        path = root / ("test" if seed % 4 == 0 else "train") / ("papule" if seed % 2 else "plaque") / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def config(photos, out, script=None, **changes):
    engine_args = dict(changes.pop("engine_args", {}))
    if script is not None:
        file = out.parent / "script.json"
        file.write_text(json.dumps(script))
        engine_args["script"] = str(file)
    settings = {"images": str(photos), "out": out, "engine": "scripted", "engine_args": engine_args, "n_workers": 0}
    return AnnotateConfig(**{**settings, **changes})


def sha_of(photos, name):
    return next(row.image_sha256 for row in index_images(photos) if row.path.endswith(name))


def children_of(pid):
    """Processes whose parent is `pid`, by https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def wait_for_end(pids):
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.02)


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def test_every_file_has_one_row_and_the_run_tells_what_it_is(photos, tmp_path):
    (photos / "train/papule/broken.jpg").write_text("no image")
    shutil.copy(photos / "train/papule/1.jpg", photos / "test/plaque/copy.jpg")
    summary = run(config(photos, tmp_path / "run"), command="vl-dermnet annotate …")
    assert (summary.n_images, summary.n_ok, summary.n_refused, summary.n_failed) == (14, 13, 1, 0)
    assert summary.n_described == 12  # the copy was not asked again

    found = read_run(tmp_path / "run")
    assert found.run["set_name"] == "scripted-doctor"
    assert found.run["command"] == "vl-dermnet annotate …"
    assert found.run["prompt"]["text"].startswith(
        "You are a doctor. Please describe the image from a medical perspective in an objective manner"
    )
    assert found.summary is not None
    assert found.summary["n_ok"] == 13
    by_path = {row.path: found.descriptions[row.image_id] for row in found.index}
    assert len(by_path) == 14
    assert by_path["test/plaque/copy.jpg"].description == by_path["train/papule/1.jpg"].description
    refused = by_path["train/papule/broken.jpg"]
    assert (refused.status, refused.reason) == (
        "refused",
        "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF",
    )
    for row in found.index:
        if row.status == "ok":
            assert row.image_sha256[:8] in found.descriptions[row.image_id].description
    assert pq.read_schema(part_files(tmp_path / "run")[0]).equals(DESCRIPTION_SCHEMA)


def test_a_finished_run_is_not_asked_again(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    parts = part_files(tmp_path / "run")
    again = run(config(photos, tmp_path / "run"))
    assert again.n_described == 0
    assert again.n_ok == 12
    assert part_files(tmp_path / "run") == parts


def test_new_and_changed_images_are_described_and_nothing_else(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    Image.new("RGB", (50, 50), "red").save(photos / "train/papule/new.jpg")
    Image.new("RGB", (64, 64), "blue").save(photos / "train/papule/1.jpg")
    again = run(config(photos, tmp_path / "run"))
    assert (again.n_described, again.n_ok, again.n_images) == (2, 13, 13)
    found = read_run(tmp_path / "run")
    for row in found.index:
        assert found.descriptions[row.image_id].image_sha256 == row.image_sha256


def test_images_that_left_the_source_are_counted_and_do_not_spoil_the_run(photos, tmp_path):
    from builders.build import BuildConfig, build

    run(config(photos, tmp_path / "run"))
    (photos / "train/papule/1.jpg").unlink()
    again = run(config(photos, tmp_path / "run"))
    assert (again.n_images, again.n_ok, again.n_withdrawn, again.n_described) == (11, 11, 1, 0)
    built = build(BuildConfig(images=photos, runs=(tmp_path / "run",), out=tmp_path / "dataset"))
    assert built.sets["scripted-doctor"].n_rows == 11


def test_what_failed_is_asked_again_by_the_next_run(photos, tmp_path):
    sha = sha_of(photos, "papule/1.jpg")
    first = run(config(photos, tmp_path / "run", script={sha: {"error": "out of luck"}, "": {"text": "{key}"}}))
    assert (first.n_ok, first.n_failed, first.reasons) == (11, 1, {"out of luck": 1})
    second = run(config(photos, tmp_path / "run", script={"": {"text": "now {key}"}}))
    assert (second.n_ok, second.n_failed, second.n_described) == (12, 0, 1)
    found = read_run(tmp_path / "run")
    (row,) = [found.descriptions[row.image_id] for row in found.index if row.image_sha256 == sha]
    assert (row.description, row.attempt, row.status) == (f"now {sha[:8]}", 2, "ok")


def test_an_image_that_changes_under_the_run_fails_alone_and_recovers(photos, tmp_path):
    index = index_images(photos)
    write_index(tmp_path / "index.parquet", index)
    victim = photos / "train/papule/1.jpg"
    data = bytearray(victim.read_bytes())
    data[-10] ^= 1
    victim.write_bytes(bytes(data))
    later = time.time() + 60
    os.utime(tmp_path / "index.parquet", (later, later))  # same length, and older than the index: only the hash tells
    first = run(config(photos, tmp_path / "run", index=tmp_path / "index.parquet"))
    assert (first.n_ok, first.reasons) == (11, {"the file has changed since it was indexed": 1})
    assert run(config(photos, tmp_path / "run")).n_ok == 12


def test_no_old_text_stands_for_new_bytes_that_nobody_described(photos, tmp_path):
    run(config(photos, tmp_path / "run", {}))
    other = np.random.default_rng(99).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(other).save(photos / "train/papule/1.jpg")
    script = {sha_of(photos, "/1.jpg"): {"error": "no luck"}}
    assert run(config(photos, tmp_path / "run", script)).n_failed == 1
    row = next(row for row in read_run(tmp_path / "run").descriptions.values() if row.status == "failed")
    assert (row.image_sha256, row.description, row.attempt) == (sha_of(photos, "/1.jpg"), "", 2)


def test_a_new_name_for_known_bytes_gets_their_text_without_being_asked(photos, tmp_path):
    key = sha_of(photos, "/3.jpg")
    script = {key: {"text": "I cannot help with this.", "finish_reason": "stop"}}
    run(config(photos, tmp_path / "run", script))
    before = next(row for row in read_run(tmp_path / "run").descriptions.values() if row.image_sha256 == key)
    assert before.retries == 2

    shutil.copy(photos / "train/papule/3.jpg", photos / "train/papule/copy.jpg")
    (photos / "train/papule/5.jpg").rename(photos / "train/papule/renamed.jpg")
    summary = run(config(photos, tmp_path / "run", {"": {"kill": True}}))  # an engine that dies if it is asked anything
    assert (summary.n_ok, summary.n_described) == (13, 0)
    rows = [row for row in read_run(tmp_path / "run").descriptions.values() if row.image_sha256 == key]
    assert [(row.description, row.retries, row.flags) for row in rows] == 2 * [
        (before.description, before.retries, before.flags)
    ]


def test_flags_name_what_is_suspicious_and_cut_nothing(photos, tmp_path):
    empty, cut = sha_of(photos, "papule/1.jpg"), sha_of(photos, "papule/3.jpg")
    script = {empty: {"text": " \n"}, cut: {"text": "A lesion of", "finish_reason": "length"}}
    summary = run(config(photos, tmp_path / "run", script=script))
    assert summary.n_flagged == {"empty": 1, "truncated": 1}
    texts = {row.image_sha256: row for row in read_run(tmp_path / "run").descriptions.values()}
    assert (texts[empty].description, texts[empty].flags) == (" \n", ("empty",))
    assert (texts[cut].description, texts[cut].flags) == ("A lesion of", ("truncated",))


def test_limit_takes_images_of_several_classes_and_grows(photos, tmp_path):
    assert run(config(photos, tmp_path / "run", limit=6)).n_images == 6
    found = read_run(tmp_path / "run")
    assert {row.label for row in found.index} == {"papule", "plaque"}
    grown = run(config(photos, tmp_path / "run", limit=9))
    assert (grown.n_images, grown.n_described) == (9, 3)


def test_other_settings_on_the_same_folder_are_refused_with_the_difference(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", max_tokens=64, temperature=0.5))
    assert str(caught.value) == (
        f"{tmp_path}/run was made with other settings; its texts and new ones would not be one set:\n"
        "  sampling.max_tokens: 256 -> 64\n"
        "  sampling.temperature: 0.0 -> 0.5\n"
        "  fix: use another --out, or the old settings"
    )
    assert read_run(tmp_path / "run").summary is not None


def test_a_setting_that_was_left_out_is_named_too(photos, tmp_path):
    run(config(photos, tmp_path / "run", schema_name="derm", engine_args={"seconds": 0.0}))
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run"))
    _, *changed, _ = str(caught.value).splitlines()
    assert [line.partition(":")[0].strip() for line in changed] == [
        "schema.name",
        "schema.sha256",
        "engine.args.seconds",
    ]
    assert changed[0] == "  schema.name: derm -> None"
    assert changed[2] == "  engine.args.seconds: 0.0 -> None"


def test_batch_sizes_and_workers_are_not_in_the_fingerprint(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    assert run(config(photos, tmp_path / "run", n_workers=1, max_in_flight=3, part_rows=2)).n_described == 0


def test_a_second_process_on_the_same_folder_is_refused(photos, tmp_path):
    slow = config(photos, tmp_path / "run", engine_args={"seconds": 0.5})
    process = subprocess.Popen([sys.executable, "-c", RUN, slow.model_dump_json()])
    try:
        while not (tmp_path / "run" / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(UserError, match="is in use by another annotate process"):
            run(slow)
    finally:
        process.kill()
        process.wait()


def test_a_killed_run_continues_and_ends_as_if_nothing_had_happened(photos, tmp_path):
    uninterrupted = tmp_path / "calm"
    run(config(photos, uninterrupted))
    victim = sha_of(photos, "plaque/6.jpg")
    settings = config(photos, tmp_path / "killed", script={victim: {"hang": True}}, part_rows=1)
    with subprocess.Popen([sys.executable, "-c", RUN, settings.model_dump_json()]) as process:
        while len(rows_on_disk(tmp_path / "killed")) < 5:
            assert process.poll() is None
            time.sleep(0.02)
        engines = children_of(process.pid)
        process.kill()
    wait_for_end(engines)
    kept = rows_on_disk(tmp_path / "killed")
    assert 0 < len(kept) < 12
    assert not (tmp_path / "killed" / "summary.json").exists()

    (tmp_path / "script.json").write_text("{}")
    run(settings)
    rows = rows_on_disk(tmp_path / "killed")
    assert len(rows) == len({row["image_id"] for row in rows}) == 12
    calm = {key: row.description for key, row in read_run(uninterrupted).descriptions.items()}
    assert {key: row.description for key, row in read_run(tmp_path / "killed").descriptions.items()} == calm
    assert not list((tmp_path / "killed" / "parts").glob(".*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "vlm"}, "unknown engine 'vlm'; choose one of: auto, openai, scripted, transformers, vllm"),
        (
            {"prompt": "nurse"},
            "unknown prompt 'nurse'; choose one of: doctor, or give a text file\n"
            "  fix: vl-dermnet annotate … --prompt doctor",
        ),
        (
            {"engine": "transformers", "model": "no-such-folder"},
            f"unknown model 'no-such-folder': {NO_MODEL}",
        ),
        (
            {"engine": "transformers", "model": "a/b", "trust_remote_code": True, "revision": "main"},
            "--trust-remote-code runs code of a/b: pin the commit that you have read; --revision is main\n"
            "  fix: the same command with --revision COMMIT   (40 hex digits)",
        ),
        ({"engine": "transformers", "model": "InternVL3/"}, f"unknown model 'InternVL3/': {NO_MODEL}"),
        ({"engine": "transformers", "model": "a/b "}, f"unknown model 'a/b ': {NO_MODEL}"),
        (
            {"engine_args": {"trust_remote_code": True}},
            "--engine-arg trust_remote_code is not passed on\n  fix: use --trust-remote-code",
        ),
        (
            {"engine_args": {"tokenizer_revision": "main"}},
            "--engine-arg tokenizer_revision is not passed on\n"
            "  fix: use --model and --revision, which name weights, configuration, tokenizer and code together",
        ),
        (
            {"engine": "vllm", "engine_args": {"endpoint": ["http://h"]}},
            "--endpoint names a server, and --engine vllm loads the model here\n  fix: leave one out",
        ),
        (
            {"engine": "transformers", "tensor_parallel": 2},
            "--tensor-parallel 2 is for vLLM; engine 'transformers' uses one GPU\n"
            "  fix: --engine vllm, or leave it out; --data-parallel puts an engine on each GPU",
        ),
        (
            {"engine": "openai", "tensor_parallel": 2},
            "--tensor-parallel 2 is the server's to set, where it is started\n"
            "  fix: vllm serve MODEL --tensor-parallel-size 2",
        ),
    ],
)
def test_mistakes_are_answered_with_what_to_type(photos, tmp_path, settings, message):
    with pytest.raises(UserError) as caught:
        run(config(photos, tmp_path / "run", **settings))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"timeout_s": float("inf")}, "--timeout inf"),
        ({"max_refused": float("nan")}, "--max-refused nan"),
    ],
)
def test_a_number_that_is_none_is_named(tmp_path, settings, option):
    with pytest.raises(UserError) as caught:
        config("photos", tmp_path / "run", **settings)
    assert str(caught.value) == f"{option} is not a finite number\n  fix: vl-dermnet annotate --help"


def test_engine_args_are_json_or_text():
    assert parse_engine_args(["max-num-seqs=8", "quantization=fp8", 'x={"a": 1}', "eager=true"]) == {
        "max_num_seqs": 8,
        "quantization": "fp8",
        "x": {"a": 1},
        "eager": True,
    }
    with pytest.raises(UserError, match="--engine-arg 'max_num_seqs' is not key=value"):
        parse_engine_args(["max_num_seqs"])


def test_a_change_that_keeps_the_length_is_seen(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    victim = photos / "train/papule/1.jpg"
    data = bytearray(victim.read_bytes())
    data[-10] ^= 1
    time.sleep(0.02)
    victim.write_bytes(bytes(data))
    assert run(config(photos, tmp_path / "run")).n_described == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_named(photos, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write to"):
        run(config(photos, tmp_path / "locked" / "run"))


def test_lost_or_damaged_provenance_is_not_written_over(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    (tmp_path / "run" / "run.json").write_text('{"set_name": ')
    with pytest.raises(UserError, match=r"run\.json is damaged: "):
        run(config(photos, tmp_path / "run"))
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json is damaged: it lacks set_name, "):
        run(config(photos, tmp_path / "run"))
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match=r"holds descriptions but no run\.json, so nobody knows what made them"):
        run(config(photos, tmp_path / "run"))


def test_damaged_parts_and_run_folders_are_named(photos, tmp_path):
    run(config(photos, tmp_path / "run"))
    part = part_files(tmp_path / "run")[0]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read the part .*\n  fix: rm "):
        run(config(photos, tmp_path / "run"))
    part.unlink()
    assert run(config(photos, tmp_path / "run")).n_described == 12
    assert read_json(tmp_path / "run" / "summary.json")["n_ok"] == 12
