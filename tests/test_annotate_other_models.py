"""Models that are not InternVL go through the vLLM engine by their own chat templates: tiny ones of three families."""

import sys
from importlib.util import find_spec
from subprocess import run

import pytest

from builders.run_folder import read_run
from builders.sample import write_sample
from builders.torch_repair import repair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed"),
    pytest.mark.timeout(300),
]
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SIGLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}
SIZE = {"height": 56, "width": 56}


def tokenizer(*special, **named):
    """Bytes, four runs of line breaks and the special tokens, which begin with end of text, start and end of a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    breaks = ["\n" * n for n in range(1, 5)]
    alphabet = special + sorted(pre_tokenizers.ByteLevel.alphabet()) + breaks
    bpe = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens(special)
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **ends, extra_special_tokens=named)


def template(image):
    turn = "{{'<|im_start|>' + message['role'] + '\n'}}"
    part = "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}".replace(
        "IMAGE", image
    )
    parts = "{% for part in message['content'] %}" + part + "{% endfor %}"
    content = "{% if message['content'] is string %}{{ message['content'] }}{% else %}" + parts + "{% endif %}"
    start = "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
    return "{% for message in messages %}" + turn + content + "{{'<|im_end|>\n'}}{% endfor %}" + start


def qwen2_vl(folder):
    import transformers as t

    words = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = t.Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": rope},
        vision_config=vision,
        vision_start_token_id=3,
        vision_end_token_id=4,
        image_token_id=5,
        video_token_id=6,
    )
    t.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    t.Qwen2VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(size=size),
        tokenizer=words,
        video_processor=t.Qwen2VLVideoProcessor(size=size),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)


def llava_onevision(folder):
    import transformers as t

    words, grid = tokenizer("<image>", "<video>"), [[56, 56], [56, 112], [112, 56]]
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**SIGLIP),
        text_config=t.Qwen2Config(**TEXT, vocab_size=len(words)),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    t.LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    t.LlavaOnevisionProcessor(
        image_processor=t.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=grid),
        tokenizer=words,
        video_processor=t.LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n"),
    ).save_pretrained(folder)


def gemma3(folder):
    import transformers as t

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer(*named.values(), **named)
    config = t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**SIGLIP),
        text_config=t.Gemma3TextConfig(**TEXT, head_dim=32, vocab_size=len(words), sliding_window=64),
        mm_tokens_per_image=4,
        boi_token_index=3,
        eoi_token_index=4,
        image_token_index=5,
    )
    t.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    t.Gemma3Processor(
        image_processor=t.Gemma3ImageProcessor(size=SIZE),
        tokenizer=words,
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    ).save_pretrained(folder)


@pytest.mark.parametrize("write", [qwen2_vl, llava_onevision, gemma3])
def test_it_is_asked_through_its_own_template_and_its_image_tokens_are_counted(write, tmp_path):
    repair()
    write(tmp_path / "model")
    write_sample(tmp_path / "photos", n_images=40, seed=3)
    # Weights are vLLM's own random ones: it does not know all names under which transformers 5 saves.
    options = ["--engine", "vllm", "--dtype", "float32", "--max-tokens", "8", "--limit", "5", "--retries", "0"]
    command = ["annotate", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "model")]
    words = [
        sys.executable,
        "-m",
        "annotate",
        *command,
        *options,
        "--engine-arg",
        "load_format=dummy",
        "--no-preflight",
    ]
    ended = run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = read_run(tmp_path / "run")
    rows = list(found.descriptions.values())
    assert [row.status for row in rows] == ["ok"] * 5
    assert all(0 < row.n_image_tokens < row.n_prompt_tokens for row in rows)
    assert "You are a doctor." in found.run["prompt"]["rendered"]
