"""One contract for every engine, and agreement between the two real ones."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from PIL import Image

from annotate.engines import ENGINES, EXTRAS, NEEDS, EngineConfig, Feed, Request, choose_engine, load_engine
from annotate.engines.internvl import tile_args, tokens_per_tile
from annotate.models import Model
from builders.bundled import BUNDLED
from builders.errors import UserError
from builders.files import read_json
from builders.index import read_index
from builders.run_folder import part_files, read_part, read_run
from builders.sample import write_sample
from builders.schema import image_id_of
from builders.torch_repair import repair

N_AGREEMENT = 40  # of 100 photographs in tests/test_annotate_tiny_internvl.py


def annotate(photos, run, *options, **popen):
    """`vl-dermnet annotate` with the bundled model, greedy, float32, in a process of its own."""
    command = ["annotate", str(photos), "--out", str(run), "--model", "tiny-internvl", "--dtype", "float32", *options]
    return subprocess.Popen([sys.executable, "-m", "annotate", *command], **popen)


def is_installed(engine):
    return all(find_spec(package) is not None for package in NEEDS[engine])


def texts(run):
    return {key: row.description for key, row in read_run(run).descriptions.items()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "photos"
    write_sample(folder, n_images=24, seed=77, broken=True)
    return folder


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "photos"
    write_sample(folder, n_images=N_AGREEMENT, seed=78)
    return folder


@pytest.fixture(scope="module")
def calm(many_photos, tmp_path_factory):
    """A run of `many_photos` on vLLM that nothing interrupts."""
    run = tmp_path_factory.mktemp("calm") / "run"
    assert annotate(many_photos, run, "--engine", "vllm").wait() == 0
    return run


def test_every_engine_can_be_imported_without_its_libraries():
    for target in ENGINES.values():
        module, _, name = target.partition(":")
        engine = getattr(importlib.import_module(module), name)
        assert {"start", "describe", "close"} <= set(dir(engine))


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(each, marks=pytest.mark.slow if each in ("vllm", "transformers") else ())
        for each in sorted(ENGINES)
    ],
)
def test_every_engine_answers_each_image_once_and_tells_what_it_did(engine, photos, tmp_path):
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    if engine == "openai":
        pytest.skip("needs a server: tests/test_annotate_openai.py")
    run = tmp_path / "run"
    assert annotate(photos, run, "--engine", engine, "--max-refused", "1").wait() == 0
    found = read_run(run)
    assert found.run["engine"]["kind"] == engine
    assert found.run["engine"]["id"].startswith(engine)
    assert "You are a doctor." in found.run["prompt"]["rendered"]
    assert len(found.descriptions) == len(found.index)
    for row in found.index:
        description = found.descriptions[row.image_id]
        assert description.status == row.status
        if row.status == "ok":
            assert description.description.strip()
            assert description.finish_reason == "stop"
            assert description.n_output_tokens > 0
            assert engine == "scripted" or description.n_prompt_tokens > description.n_image_tokens > 0
            assert description.n_tiles == 1
    assert {row.status for row in found.index} == {"ok", "refused"}


def test_auto_says_which_engine_and_why():
    engine, why = choose_engine()
    assert engine in ENGINES
    assert "installed" in why


def test_an_engine_that_is_not_installed_says_what_to_type(photos, tmp_path):
    missing = [name for name in ENGINES if not is_installed(name)]
    if not missing:
        pytest.skip("every engine is installed here")
    process = annotate(photos, tmp_path / "run", "--engine", missing[0], stderr=subprocess.PIPE, text=True)
    _, error = process.communicate()
    assert process.returncode == 1
    assert f"engine '{missing[0]}' needs packages that are not installed" in error
    assert "fix: pip install 'vl-dermnet[" in error


def test_the_other_way_without_an_engine_is_a_whole_command(monkeypatch):
    monkeypatch.setitem(NEEDS, "scripted", ("not_installed_anywhere",))
    monkeypatch.setitem(EXTRAS, "scripted", "dev")
    with pytest.raises(UserError) as caught:
        load_engine("scripted", EngineConfig(Model("scripted", "", "none", "none"), "a prompt", 8))
    assert str(caught.value) == (
        "engine 'scripted' needs packages that are not installed: not_installed_anywhere.\n"
        "  fix: pip install 'vl-dermnet[dev]'\n"
        "  or:  vl-dermnet annotate IMAGES --out RUN --engine auto   (any machine)"
    )


def test_a_text_model_is_refused(photos, tmp_path):
    if not is_installed("transformers"):
        pytest.skip("transformers is not installed")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    command = ["annotate", str(photos), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "text")]
    ended = subprocess.run(
        [sys.executable, "-m", "annotate", *command, "--engine", "transformers"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "error: transformers cannot load text (BertModel)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_feed_hands_over_what_its_source_raises():
    def broken():
        yield Request("a", Image.new("RGB", (1, 1)))
        raise UserError("the source broke")

    feed = Feed(broken(), ahead=4)
    assert [request.key for request in feed.take_many(1)] == ["a"]
    with pytest.raises(UserError, match="the source broke"):
        feed.take(wait=True)
    feed.close()


def test_a_closed_feed_ends_its_source():
    ended = []

    def endless():
        try:
            while True:
                yield Request("a", Image.new("RGB", (1, 1)))
        finally:
            ended.append(True)

    feed = Feed(endless(), ahead=2)
    feed.take_many(3)
    feed.close()
    assert ended == [True]


def test_tiles_are_capped_in_each_formats_own_words():
    assert tile_args("InternVLChatModel", 6) == {"max_dynamic_patch": 6}
    assert tile_args("InternVLForConditionalGeneration", 6) == {"crop_to_patches": True, "max_patches": 6}
    assert tile_args("InternVLForConditionalGeneration", 1) == {"crop_to_patches": False, "max_patches": 1}
    assert tile_args("InternVLChatModel", None) is None
    assert tokens_per_tile(object()) == 0
    with pytest.raises(UserError, match="--max-dynamic-patch 6 is for InternVL; this model is Qwen2VLForConditional"):
        tile_args("Qwen2VLForConditionalGeneration", 6)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed")
def test_vllm_refuses_a_model_that_does_not_see(photos, tmp_path):
    repair()
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED["tiny-internvl"])
    text_model = Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=64,
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
        )
    )
    text_model.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    command = ["annotate", str(photos), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "text")]
    ended = subprocess.run(
        [sys.executable, "-m", "annotate", *command, "--engine", "vllm", "--dtype", "float32"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: text does not see: its prompt holds no image" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed")
@pytest.mark.timeout(900)
def test_a_context_too_short_stops_the_run_and_another_one_goes_on(photos, tmp_path):
    arguments = ("--engine", "vllm", "--max-dynamic-patch", "1", "--max-refused", "1")
    for max_model_len, told in (
        (32, "the context of tiny-internvl is too short for the prompt of one image: "),
        (100, "the context is too short: beside prompts of up to 88 tokens, answers were cut at 12 of the 256 tokens"),
    ):
        options = (*arguments, "--engine-arg", f"max_model_len={max_model_len}")
        stopped = annotate(photos, tmp_path / "run", *options, stderr=subprocess.PIPE)
        _, said = stopped.communicate(timeout=300)
        assert stopped.returncode == 1
        assert f"error: {told}" in said.decode()
        assert "Traceback" not in said.decode()
        rows = [row for part in part_files(tmp_path / "run") for row in read_part(part)]
        assert {row.status for row in rows} == {"refused"}  # the broken files, of which no engine hears
    assert annotate(photos, tmp_path / "run", *arguments).wait(timeout=300) == 0


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed")
def test_one_prompt_that_does_not_fit_costs_no_other_row_and_no_engine(tmp_path):
    folder = tmp_path / "photos" / "train" / "papule"
    folder.mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (448, 448), (number * 20, 90, 80)).save(folder / f"square-{number}.png")
    Image.new("RGB", (1344, 896), "grey").save(
        folder / "wide.png"
    )  # seven tiles of 16 tokens, where the others have five
    arguments = ("--engine", "vllm", "--max-dynamic-patch", "6", "--engine-arg", "max_model_len=170", "--no-preflight")
    assert annotate(tmp_path / "photos", tmp_path / "run", *arguments, "--max-refused", "1").wait(timeout=300) == 0
    run = read_run(tmp_path / "run")
    failed = [row for row in run.descriptions.values() if row.status == "failed"]
    assert len(run.descriptions) == 9
    assert [row.image_id for row in failed] == [image_id_of("train/papule/wide.png")]
    assert failed[0].reason.startswith("the engine refused it: ")
    assert "170" in failed[0].reason
    assert read_json(tmp_path / "run" / "summary.json")["n_restarts"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_model_without_a_chat_template_is_told_so(photos, tmp_path, engine):
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    model = tmp_path / "silent"
    shutil.copytree(BUNDLED["tiny-internvl"], model)
    (model / "chat_template.jinja").unlink()
    command = ["annotate", str(photos), "--out", str(tmp_path / "run"), "--model", str(model), "--engine", engine]
    ended = subprocess.run(
        [sys.executable, "-m", "annotate", *command], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 1
    assert "error: silent has no chat template: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (is_installed("vllm") and is_installed("transformers")), reason="needs both engines")
@pytest.mark.timeout(900)
def test_vllm_and_transformers_say_the_same(many_photos, calm, tmp_path):
    assert annotate(many_photos, tmp_path / "run", "--engine", "transformers").wait() == 0
    ours, theirs = texts(calm), texts(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    agreement = sum(ours[key] == theirs[key] for key in ours) / len(ours)
    assert agreement >= 0.98, f"{agreement:.1%} of {len(ours)} descriptions agree"


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed")
@pytest.mark.timeout(900)
def test_killed_half_way_and_started_again_it_ends_with_the_same_text(many_photos, calm, tmp_path):
    killed = tmp_path / "killed"
    process = annotate(many_photos, killed, "--engine", "vllm", "--part-rows", "2", start_new_session=True)
    while not (killed / "parts").is_dir() or len(part_files(killed)) < 6:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    n_before = sum(len(read_part(part)) for part in part_files(killed))
    assert 0 < n_before < N_AGREEMENT
    assert annotate(many_photos, killed, "--engine", "vllm").wait() == 0
    rows = [row.image_id for part in part_files(killed) for row in read_part(part)]
    assert sorted(rows) == sorted(row.image_id for row in read_index(killed / "index.parquet"))
    assert texts(killed) == texts(calm)
