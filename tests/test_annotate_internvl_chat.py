"""The other InternVL format, `InternVLChatModel` with code of its own, goes through the vLLM engine too."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from builders.run_folder import read_run
from builders.torch_repair import repair

CONFIGURATION = """
from transformers import AutoConfig, PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"
    is_composition = True

    def __init__(self, vision_config=None, llm_config=None, **kwargs):
        super().__init__(**kwargs)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        llm_config = dict(llm_config or {"model_type": "qwen2"})
        self.llm_config = AutoConfig.for_model(llm_config.pop("model_type"), **llm_config)
"""
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "image_size": 56,
    "patch_size": 14,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "norm_type": "layer_norm",
    "qkv_bias": True,
    "qk_normalization": False,
    "use_flash_attn": False,
    "initializer_factor": 1.0,
    "dropout": 0.0,
    "drop_path_rate": 0.0,
    "attention_dropout": 0.0,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vision_weights(dim, rng):
    """Random tensors under the names of OpenGVLab's modeling_intern_vit.py and modeling_internvl_chat.py."""
    hidden, n_patches = VISION["hidden_size"], (VISION["image_size"] // VISION["patch_size"]) ** 2
    shapes = {
        "vision_model.embeddings.class_embedding": (1, 1, hidden),
        "vision_model.embeddings.patch_embedding.weight": (hidden, 3, VISION["patch_size"], VISION["patch_size"]),
        "vision_model.embeddings.patch_embedding.bias": (hidden,),
        "vision_model.embeddings.position_embedding": (1, n_patches + 1, hidden),
        "mlp1.0.weight": (4 * hidden,),
        "mlp1.0.bias": (4 * hidden,),
        "mlp1.1.weight": (dim, 4 * hidden),
        "mlp1.1.bias": (dim,),
        "mlp1.3.weight": (dim, dim),
        "mlp1.3.bias": (dim,),
    }
    for layer in range(VISION["num_hidden_layers"]):
        here, wide = f"vision_model.encoder.layers.{layer}.", VISION["intermediate_size"]
        vectors = ("ls1", "ls2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.proj.bias")
        shapes |= {here + name: (hidden,) for name in (*vectors, "mlp.fc2.bias")}
        shapes |= {here + "attn.qkv.weight": (3 * hidden, hidden), here + "attn.qkv.bias": (3 * hidden,)}
        shapes |= {here + "attn.proj.weight": (hidden, hidden), here + "mlp.fc1.weight": (wide, hidden)}
        shapes |= {here + "mlp.fc1.bias": (wide,), here + "mlp.fc2.weight": (hidden, wide)}
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def write_checkpoint(folder):
    """A random InternVLChatModel of about 0.2 M parameters, with the file layout of OpenGVLab's checkpoints."""
    repair()
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder.mkdir()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    alphabet = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    language = Qwen2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    weights = {f"language_model.{name}": tensor for name, tensor in Qwen2ForCausalLM(language).state_dict().items()}
    rng = np.random.default_rng(0)
    weights |= {name: torch.from_numpy(array) for name, array in vision_weights(language.hidden_size, rng).items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": VISION["image_size"],
        "llm_config": {**language.to_dict(), "architectures": ["Qwen2ForCausalLM"]},
        "vision_config": {**VISION, "architectures": ["InternVisionModel"]},
        "max_dynamic_patch": 4,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "use_thumbnail": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_internvl_chat.py").write_text(CONFIGURATION)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_the_custom_code_format_is_described_and_its_tiles_are_counted(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "chat")
    photos = tmp_path / "photos" / "train" / "papule"
    photos.mkdir(parents=True)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 255, (480, 720, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{seed}.jpg")
    run = tmp_path / "run"  # at 56 px a tile, 720 x 480 is cut into 2 x 2 and a thumbnail
    options = ["--max-dynamic-patch", "4", "--max-tokens", "8", "--engine", "vllm", "--dtype", "float32"]
    command = ["annotate", str(photos.parents[1]), "--out", str(run), "--model", str(checkpoint), *options]
    subprocess.run([sys.executable, "-m", "annotate", *command, "--trust-remote-code"], check=True)
    rows = list(read_run(run).descriptions.values())
    assert [row.status for row in rows] == ["ok"] * 3
    assert {(row.n_tiles, row.n_image_tokens) for row in rows} == {(5, 20)}
