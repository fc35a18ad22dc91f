"""The dry run: its token counts are the processor's own, it writes nothing, and what it cannot know it says."""

import dataclasses
import json
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotate.checkpoint import context_tokens, count_parameters
from annotate.config import AnnotateConfig
from annotate.dry_run import Spread, plan, render
from annotate.engines.internvl import tile_args
from annotate.measure import MAX_MEASURED, measure, upright_size_px
from annotate.models import Model, resolve_model
from annotate.prompt_tokens import count_prompt_tokens, tiles_of
from annotate.prompts import load_prompt
from annotate.schemas import load_schema
from builders.bundled import BUNDLED
from builders.decode import FORMATS, decode_rgb
from builders.errors import UserError
from builders.torch_repair import repair

SIZES_PX = [(24, 16), (128, 128), (720, 480), (300, 900), (1000, 1000), (1600, 90)]
PROMPT = load_prompt("doctor")
ELSEWHERE = Model(id="scripted", location="", revision="none", architecture="none")
CHAT_CONFIG = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "max_dynamic_patch": 4,
    "min_dynamic_patch": 1,
    "use_thumbnail": True,
    "vision_config": {"image_size": 56, "patch_size": 14},
    "llm_config": {"max_position_embeddings": 2048},
}


@pytest.fixture(scope="module")
def processor():
    repair()
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(BUNDLED["tiny-internvl"])


@pytest.fixture
def qwen(tmp_path):
    """A Qwen2-VL checkpoint without weights: the bundled tokenizer with Qwen's image tokens, and Qwen's processor."""
    repair()
    from transformers import AutoTokenizer, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED["tiny-internvl"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]})
    template = (BUNDLED["tiny-internvl"] / "chat_template.jinja").read_text()
    template = template.replace("<IMG_CONTEXT>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=template,
    )
    processor.save_pretrained(tmp_path / "qwen")
    config = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(config))
    return processor, resolve_model(str(tmp_path / "qwen"), None, trust_remote_code=False)


@pytest.fixture
def tiny():
    return resolve_model("tiny-internvl", None, trust_remote_code=False)


@pytest.fixture
def tiny_copy(tmp_path):
    """A function that copies the bundled checkpoint with some values of its config.json changed."""

    def make(**changes):
        folder = tmp_path / "copy"
        shutil.copytree(BUNDLED["tiny-internvl"], folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def planned(photographs, out, model, engine="transformers", **settings):
    config = AnnotateConfig(images=str(photographs), out=out / "run", **settings)
    return plan(config, engine, model, PROMPT)


def write_photo(path, size_px, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_px, "grey").save(path, **options)


def real_prompt(processor, size_px, processor_args, text=PROMPT.text):
    """The token ids of one prompt, as the transformers engine makes them."""
    picture = {"type": "image", "image": Image.new("RGB", size_px)}
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": [picture, {"type": "text", "text": text}]}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs=processor_args,
    )
    return inputs["input_ids"][0]


@pytest.mark.parametrize("max_dynamic_patch", [1, 4, None])
def test_tokens_are_those_of_the_real_processor(processor, tiny, max_dynamic_patch):
    processor_args = tile_args(tiny.architecture, max_dynamic_patch) or {}
    tokens = count_prompt_tokens(tiny, [PROMPT.text], SIZES_PX, processor_args)
    prompts = [real_prompt(processor, size_px, processor_args) for size_px in SIZES_PX]
    assert tokens.n_image_tokens == [list(ids).count(processor.image_token_id) for ids in prompts]
    assert [tokens.n_text_tokens[0] + n for n in tokens.n_image_tokens] == [len(ids) for ids in prompts]
    assert [16 * n for n in tokens.n_tiles] == tokens.n_image_tokens
    assert max(tokens.n_tiles) == (5 if max_dynamic_patch == 4 else 1)


@pytest.mark.parametrize("processor_args", [{}, {"size": {"shortest_edge": 3136, "longest_edge": 200704}}])
def test_models_without_tiles_are_counted_by_their_own_processor(qwen, processor_args):
    processor, model = qwen
    tokens = count_prompt_tokens(model, [PROMPT.text], SIZES_PX[1:], processor_args)
    prompts = [real_prompt(processor, size_px, processor_args) for size_px in SIZES_PX[1:]]
    assert tokens.n_image_tokens == [list(ids).count(processor.image_token_id) for ids in prompts]
    assert [tokens.n_text_tokens[0] + n for n in tokens.n_image_tokens] == [len(ids) for ids in prompts]
    assert tokens.n_tiles == []
    assert max(tokens.n_image_tokens) == (256 if processor_args else 1225)


def test_a_context_that_config_json_leaves_out_is_the_kinds_default(qwen):
    _, model = qwen
    assert context_tokens(model, "vllm", {}) == 32768


def test_counting_leaves_the_processors_defaults_as_they_were(processor, tiny):
    before = len(real_prompt(processor, (720, 480), {}))
    count_prompt_tokens(tiny, [PROMPT.text], SIZES_PX, {"crop_to_patches": True, "max_patches": 4})
    assert len(real_prompt(processor, (720, 480), {})) == before


SIDES_PX = st.integers(1, 4000) | st.integers(1, 12).map(lambda n: 120 * n)  # the latter for ties between grids


@given(SIDES_PX, SIDES_PX, st.integers(1, 12))
def test_both_formats_cut_an_image_into_as_many_tiles(width_px, height_px, max_tiles):
    repair()
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas((height_px, width_px), (448, 448), 1, max_tiles)
    assert tiles_of((width_px, height_px), 448, 1, max_tiles, use_thumbnail=False) == columns * rows
    with_thumbnail = columns * rows + (columns * rows > 1)
    assert tiles_of((width_px, height_px), 448, 1, max_tiles, use_thumbnail=True) == with_thumbnail


def test_the_custom_code_format_is_counted_by_its_config(tmp_path, photographs):
    folder = tmp_path / "chat"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BUNDLED["tiny-internvl"] / name, folder)
    (folder / "config.json").write_text(json.dumps(CHAT_CONFIG))
    model = Model("chat", str(folder), "sha256:0", "InternVLChatModel")
    four = count_prompt_tokens(model, [PROMPT.text], SIZES_PX, {})
    assert four.n_tiles == [1, 5, 5, 4, 5, 5]  # with a thumbnail wherever there is more than one
    assert four.n_image_tokens == [4 * n for n in four.n_tiles]
    one = count_prompt_tokens(model, [PROMPT.text], SIZES_PX, {"max_dynamic_patch": 1})
    assert one.n_tiles == [1] * len(SIZES_PX)
    assert planned(photographs, tmp_path, model, engine="vllm").context_tokens == 2048


def test_a_plan_counts_files_tokens_and_cost(photographs, tmp_path, tiny, processor):
    found = planned(photographs, tmp_path, tiny, max_tokens=64, max_refused=0.1)
    n_prompt = len(real_prompt(processor, (24, 16), {}))
    assert (found.n_files, found.n_measured, found.n_unreadable) == (27, 26, 1)
    assert found.sizes_px == Spread((16, 24), (24, 16), (24, 16))
    assert (found.total_prompt_tokens, found.total_output_tokens) == (26 * n_prompt, 26 * 64)
    assert found.n_parameters == n_elements(BUNDLED["tiny-internvl"])
    assert found.flop == 2 * found.n_parameters * 26 * (n_prompt + 64)
    assert found.gpu_hours == pytest.approx(found.flop / (0.4 * 989e12) / 3600)
    assert found.warnings == []
    assert json.loads(json.dumps(dataclasses.asdict(found)))["config"]["max_tokens"] == 64


def n_elements(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118 - no mapping


def test_a_dry_run_writes_nothing(photographs, tmp_path, tiny):
    before = sorted(tmp_path.rglob("*"))
    planned(photographs, tmp_path, tiny)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_reads_as_lines(photographs, tmp_path, tiny):
    lines = render(planned(photographs, tmp_path, tiny, max_tokens=64))
    assert "image size, px: 16 × 24 to 24 × 16, median 24 × 16" in lines
    assert "tiles per image: 1" in lines
    assert "image tokens per image: 16" in lines
    assert "context: 2,048 tokens for prompt and answer" in lines
    assert any(line.startswith("time, an estimate and no measurement: ") for line in lines)
    assert "the estimate assumes: 2 × parameters × tokens, on one H100 at 40% of its 989 TFLOP/s (dense bf16)" in lines
    assert 'config.model: "OpenGVLab/InternVL3-8B-hf"' in lines
    assert lines[-1] == "warning: 1 of 27 files looked at are no usable images, more than --max-refused 0.02 allows"


def test_at_most_so_many_files_are_opened_and_the_rest_is_scaled(tmp_path):
    for number in range(MAX_MEASURED + 4):
        write_photo(tmp_path / "photos" / f"{number}.png", (8, 8))
    (tmp_path / "photos" / "0.png").write_bytes(b"")
    everything = measure(str(tmp_path / "photos"), None)
    assert everything.n_files == MAX_MEASURED + 4
    assert len(everything.sizes_px) + everything.n_unreadable == MAX_MEASURED
    assert measure(str(tmp_path / "photos"), 5).n_files == 5
    found = planned(tmp_path / "photos", tmp_path, ELSEWHERE, engine="scripted", max_tokens=10)
    assert found.total_output_tokens == 10 * round((MAX_MEASURED + 4) * found.n_measured / MAX_MEASURED)


def test_files_that_cannot_be_opened_are_counted(tmp_path, tiny):
    photos = tmp_path / "photos"
    write_photo(photos / "good.png", (32, 16))
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_text("no image")
    (photos / "absent.jpg").symlink_to(photos / "nowhere.jpg")
    bomb = struct.pack(">II", 60_000, 60_000)
    data = bytearray((photos / "good.png").read_bytes())
    data[16:24] = bomb  # width and height in a PNG's header, whose checksum is then wrong
    (photos / "damaged.png").write_bytes(data)
    write_photo(photos / "bomb.bmp", (1, 1))
    data = bytearray((photos / "bomb.bmp").read_bytes())
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    (photos / "bomb.bmp").write_bytes(data)
    found = planned(photos, tmp_path, tiny)
    assert (found.n_files, found.n_measured, found.n_unreadable) == (6, 1, 5)
    assert "5 of 6 files looked at are no usable images" in found.warnings[0]


def test_a_source_of_broken_files_has_a_plan_too(tmp_path, tiny):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image")
    found = planned(tmp_path / "photos", tmp_path, tiny)
    assert (found.n_measured, found.total_output_tokens, found.sizes_px) == (0, 0, None)
    assert found.unknown == "no file could be opened as an image"
    assert "tokens are unknown: no file could be opened as an image" in render(found)


def test_a_source_without_images_is_a_mistake(tmp_path, tiny):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="no image file in"):
        planned(tmp_path / "photos", tmp_path, tiny)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("orientation", [None, 3, 6])
def test_the_header_tells_the_size_that_decoding_gives(tmp_path, image_format, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file = tmp_path / "photo"
    write_photo(file, (40, 30), format=image_format, **({"exif": exif} if orientation else {}))
    data = file.read_bytes()
    assert upright_size_px(data) == decode_rgb(data)[0].size


def test_a_context_too_short_is_warned_of(photographs, tmp_path, tiny):
    n_prompt = planned(photographs, tmp_path, tiny).longest_prompt_tokens
    cut = planned(photographs, tmp_path, tiny, max_tokens=2048, max_refused=1)
    assert cut.warnings == [
        f"the context of 2,048 tokens is too short for the description: the longest prompt has {n_prompt} and its "
        f"answer up to 2,048; long answers would be cut; fix: --max-tokens {2048 - n_prompt}, or fewer tokens per image"
    ]
    refused = planned(photographs, tmp_path, tiny, engine="vllm", engine_args={"max_model_len": 32}, max_refused=1)
    assert refused.context_tokens == 32
    assert "such images would be refused" in refused.warnings[0]
    just = planned(photographs, tmp_path, tiny, max_tokens=2048 - n_prompt, max_refused=1)
    assert just.warnings == []


def test_a_schema_asks_once_more_about_each_image(photographs, tmp_path, tiny, processor):
    schema = load_schema("derm")
    found = planned(photographs, tmp_path, tiny, engine="vllm", schema_name="derm", max_tokens=64, max_refused=1)
    assert found.n_text_tokens == {
        "description": len(real_prompt(processor, (24, 16), {})) - 16,
        "findings": len(real_prompt(processor, (24, 16), {}, schema.prompt)) - 16,
    }
    assert found.total_prompt_tokens == 26 * (sum(found.n_text_tokens.values()) + 2 * 16)
    assert found.total_output_tokens == 26 * (64 + schema.max_tokens)
    assert f"output tokens per findings: at most {schema.max_tokens:,}" in render(found)


def test_vllms_processor_arguments_replace_the_cap(tmp_path, tiny):
    write_photo(tmp_path / "photos" / "a.jpg", (720, 480))
    given_to_vllm = {"mm_processor_kwargs": {"crop_to_patches": True, "max_patches": 4}}
    found = planned(tmp_path / "photos", tmp_path, tiny, engine="vllm", engine_args=given_to_vllm)
    assert found.n_tiles.largest == 5


@pytest.mark.parametrize("engine", ["scripted", "openai"])
def test_a_model_elsewhere_has_unknown_tokens_and_all_else(photographs, tmp_path, engine):
    found = planned(photographs, tmp_path, ELSEWHERE, engine=engine, engine_args={"api_key": "sk-1"})
    assert found.unknown == found.parameters_by == "the model is not on this machine"
    assert found.n_image_tokens is found.total_prompt_tokens is found.gpu_hours is found.context_tokens is None
    assert (found.n_files, found.total_output_tokens) == (27, 26 * 256)
    lines = render(found)
    assert "image tokens per image: unknown" in lines
    assert "time, an estimate and no measurement: unknown GPU hours" in lines
    assert 'config.engine_args: {"api_key": "***"}' in lines
    assert len(found.fingerprint) == 64


def test_a_model_that_reads_text_only_says_so(photographs, tmp_path, tiny_copy):
    folder = tiny_copy(model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    (folder / "processor_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    found = planned(photographs, tmp_path, resolve_model(str(folder), None, trust_remote_code=False))
    assert found.unknown.endswith("of copy does not tell how many tokens an image has")
    assert found.n_parameters is not None
    assert found.total_prompt_tokens is None


@pytest.mark.parametrize("damage", ["no tokenizer", "a broken tokenizer"])
def test_a_processor_that_cannot_be_made_is_no_crash(photographs, tmp_path, tiny_copy, damage):
    folder = tiny_copy()
    (folder / "tokenizer.json").unlink() if damage == "no tokenizer" else (folder / "tokenizer.json").write_text("{}")
    found = planned(photographs, tmp_path, resolve_model(str(folder), None, trust_remote_code=False))
    assert found.unknown.startswith("the processor of copy cannot be used: ")
    assert "\n" not in found.unknown


def test_a_hub_model_that_is_not_on_disk_has_no_estimate(photographs, tmp_path):
    model = Model("example/absent", "example/absent", "0" * 40, "InternVLForConditionalGeneration")
    found = planned(photographs, tmp_path, model, engine="vllm")
    assert found.unknown.startswith("the processor of example/absent cannot be used: ")
    assert found.parameters_by == "no safetensors files of the model are on this disk"
    assert found.gpu_hours is found.context_tokens is None


def test_parameters_are_counted_from_headers_or_from_the_index(tmp_path, tiny_copy):
    folder = tiny_copy()
    model = Model("copy", str(folder), "sha256:0", "InternVLForConditionalGeneration")
    n_parameters, by = count_parameters(model)
    assert (n_parameters, by) == (n_elements(folder), "safetensors headers")
    index = {"metadata": {"total_size": 4 * n_parameters}, "weight_map": {"a": "part-1.safetensors", "b": "part-2"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert count_parameters(model) == (n_parameters, "total_size in model.safetensors.index.json, as float32")
    for name in ("part-1.safetensors", "part-2"):
        shutil.copy(folder / "model.safetensors", folder / name)
    assert count_parameters(model) == (2 * n_parameters, "safetensors headers")
    (folder / "part-2").write_text("version https://git-lfs.github.com/spec/v1\n")
    n_unknown, why = count_parameters(model)
    assert n_unknown is None
    assert why == "a safetensors header cannot be read: part-2 is no safetensors file"


def test_a_hub_models_parameters_are_read_from_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(BUNDLED["tiny-internvl"], tmp_path / "models--example--tiny" / "snapshots" / commit)
    model = Model("example/tiny", "example/tiny", commit, "InternVLForConditionalGeneration")
    assert count_parameters(model) == (n_elements(BUNDLED["tiny-internvl"]), "safetensors headers")
    assert context_tokens(model, "vllm", {}) == 2048
