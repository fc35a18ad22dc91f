"""train/backbones.py: any AutoModel encoder, its part of a multimodal checkpoint, its pooling, its padding."""

import json
import shutil

import pytest
import torch

from builders.errors import UserError
from builders.files import read_json, write_json
from builders.torch_repair import repair
from train.backbones import (
    ImageBackbone,
    TextBackbone,
    _n_positions,
    encoder_key,
    load_image_backbone,
    load_model,
    load_text_backbone,
    weights_key,
)
from train.texts import tokenise

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["a", "red", "papule", "with", "scale", "and", "crust", "word"]


def write_tokenizer(folder, with_class_token):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if with_class_token:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"} if with_class_token else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32, **names
    ).save_pretrained(folder)


def write_processor(folder, size_px):
    values = {"size": {"height": size_px, "width": size_px}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def make_model(kind):
    repair()
    import transformers as t

    vision = {**SIZES, "image_size": 16, "patch_size": 4}
    text = {**SIZES, "vocab_size": 12, "max_position_embeddings": 40}
    qwen = {**text, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0}
    match kind:
        case "vit":
            return t.ViTModel(t.ViTConfig(**vision))
        case "dinov2":
            return t.Dinov2Model(t.Dinov2Config(**vision))
        case "convnext":
            return t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]))
        case "clip":
            text = {**text, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
            return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        case "siglip":
            return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))
        case "internvl":
            vision = {**vision, "image_size": [16, 16], "patch_size": [4, 4]}
            config = t.InternVLConfig(
                vision_config=t.InternVLVisionConfig(**vision), text_config=t.Qwen2Config(**qwen), image_token_id=11
            )
            return t.InternVLForConditionalGeneration(config)
        case "bert":
            return t.BertModel(t.BertConfig(**text))
        case "qwen2":
            return t.Qwen2Model(t.Qwen2Config(**qwen))
        case _:
            sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
            return t.T5Model(t.T5Config(vocab_size=12, decoder_start_token_id=0, **sizes))


@pytest.fixture
def checkpoint(tmp_path):
    """A function that writes a small random checkpoint of a kind, with processor and tokenizer, to a folder."""

    def write(kind):
        torch.manual_seed(0)
        model = make_model(kind)
        with torch.no_grad():  # layer scales and biases too, so that nothing is the identity by accident
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        folder = tmp_path / kind
        model.save_pretrained(folder)
        write_processor(folder, 32 if kind == "convnext" else 16)
        write_tokenizer(folder, with_class_token=kind not in ("qwen2", "internvl", "t5"))
        return folder

    return write


IMAGE = {  # kind -> (architecture, pooling, skips the class token, number of tokens)
    "vit": ("ViTModel", "first", False, 17),
    "dinov2": ("Dinov2Model", "first", False, 17),
    "clip": ("CLIPVisionModel", "first", False, 17),
    "siglip": ("SiglipVisionModel", "mean", False, 16),
    "internvl": ("InternVLVisionModel", "mean", True, 16),
    "convnext": ("ConvNextModel", "mean", False, 1),
}


@pytest.mark.parametrize("kind", IMAGE)
def test_an_image_backbone_gives_tokens_and_the_right_summary(checkpoint, kind, tmp_path):
    backbone = load_image_backbone(str(checkpoint(kind))).eval()
    config = backbone.config
    size_px = backbone.pixels.crop_px[0]
    pixels = torch.randint(0, 256, (2, size_px, size_px, 3), dtype=torch.uint8)
    encoded = backbone(pixels)
    assert (config.architecture, config.pooling, config.skips_first, encoded.tokens.shape[1]) == IMAGE[kind]
    assert encoded.tokens.shape[2] == encoded.pooled.shape[1] == config.dim
    expected = encoded.tokens[:, 0] if config.pooling == "first" else encoded.tokens.mean(dim=1)
    torch.testing.assert_close(encoded.pooled, expected)

    backbone.model.save_pretrained(tmp_path / "saved")  # the part alone is a checkpoint of its own
    again = ImageBackbone(load_model(tmp_path / "saved", config.architecture), config, backbone.pixels).eval()
    torch.testing.assert_close(again(pixels).tokens, encoded.tokens)


TEXT = {
    "bert": ("BertModel", "first"),
    "clip": ("CLIPTextModel", "mean"),
    "siglip": ("SiglipTextModel", "first"),
    "qwen2": ("Qwen2Model", "mean"),
    "internvl": ("Qwen2Model", "mean"),
    "t5": ("T5EncoderModel", "mean"),
}
TEXTS = ["a red papule with scale and crust", "a papule", ""]


@pytest.mark.parametrize("kind", TEXT)
def test_a_text_backbone_ignores_padding_and_gives_zeros_for_no_text(checkpoint, kind, tmp_path):
    backbone = load_text_backbone(str(checkpoint(kind))).eval()
    texts = tokenise(backbone.tokenizer, TEXTS, 32)
    ids, mask = torch.from_numpy(texts.token_ids), torch.from_numpy(texts.mask)
    encoded = backbone(ids, mask)
    assert (backbone.config.architecture, backbone.config.pooling) == TEXT[kind]
    assert encoded.tokens.shape == (*mask.shape, backbone.config.dim)
    assert torch.isfinite(encoded.tokens).all()
    assert (encoded.tokens[~mask] == 0).all()
    assert (encoded.pooled[2] == 0).all()

    length = int(mask[1].sum())
    alone = backbone(ids[1:2, :length], mask[1:2, :length])
    torch.testing.assert_close(encoded.tokens[1:2, :length], alone.tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoded.pooled[1:2], alone.pooled, rtol=1e-4, atol=1e-4)

    backbone.model.save_pretrained(tmp_path / "saved")
    again = TextBackbone(
        load_model(tmp_path / "saved", backbone.config.architecture), backbone.config, backbone.tokenizer
    ).eval()
    torch.testing.assert_close(again(ids, mask).tokens, encoded.tokens)


def test_long_texts_are_cut_and_counted(checkpoint):
    tokenizer = load_text_backbone(str(checkpoint("bert"))).tokenizer
    texts = tokenise(tokenizer, ["a red papule with scale", "papule", "  "], 5)
    assert texts.n_cut == 1
    assert texts.mask.sum(axis=1).tolist() == [5, 3, 0]  # [CLS] and [SEP] stay, also where the text was cut
    assert texts.token_ids[0, -1] == tokenizer.sep_token_id


def test_a_limit_that_leaves_no_room_for_a_word_is_refused(checkpoint):
    tokenizer = load_text_backbone(str(checkpoint("bert"))).tokenizer
    assert tokenise(tokenizer, ["a red papule"], 3).mask.sum() == 3
    for limit in (1, 2):
        with pytest.raises(UserError, match=f"texts of {limit} tokens hold no word(.|\\n)*--max-text-tokens 3 or more"):
            tokenise(tokenizer, ["a red papule"], limit)


@pytest.mark.parametrize(("kind", "n_special"), [("BertModel", 0), ("RobertaModel", 2)])
def test_a_text_longer_than_the_encoders_positions_is_cut_whatever_the_tokenizer_says(kind, n_special):
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = getattr(transformers, kind.replace("Model", "Config"))
    model = getattr(transformers, kind)(config(**sizes, vocab_size=40, max_position_embeddings=20)).eval()
    longest = _n_positions(model)
    assert longest == 20 - n_special
    ids = torch.full((1, longest), 5)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape[1] == longest


def test_no_text_at_all_still_has_a_token_column(checkpoint):
    backbone = load_text_backbone(str(checkpoint("qwen2"))).eval()
    texts = tokenise(backbone.tokenizer, ["", ""], 32)
    encoded = backbone(torch.from_numpy(texts.token_ids), torch.from_numpy(texts.mask))
    assert encoded.tokens.shape == (2, 1, 16)
    assert (encoded.pooled == 0).all()


def test_a_backbone_that_is_nowhere_says_what_to_type():
    with pytest.raises(UserError) as raised:
        load_image_backbone("no-such-folder")
    assert str(raised.value) == (
        "no image backbone at 'no-such-folder': neither tiny-internvl, nor a folder, nor a Hub id (OWNER/NAME)\n"
        "  fix: --image-backbone FOLDER, or --image-backbone OWNER/NAME"
    )


def test_a_hub_id_without_a_network_is_a_clear_error(private_cache):
    with pytest.raises(UserError, match="the text backbone 'example/no-such-model' cannot be fetched from the Hub"):
        load_text_backbone("example/no-such-model")


def test_a_key_is_of_the_weights_and_another_of_what_is_made_of_them(checkpoint):
    folder = checkpoint("vit")
    copied = shutil.copytree(folder, folder.with_name("copy"))
    config = read_json(copied / "config.json")
    before, moved = (load_image_backbone(str(each)).model for each in (folder, copied))
    write_json(copied / "config.json", config | {"num_attention_heads": config["num_attention_heads"] // 2})
    other = load_image_backbone(str(copied)).model
    assert weights_key(before) == weights_key(moved) == weights_key(other)
    assert encoder_key(before) == encoder_key(moved) != encoder_key(other)


def test_a_pooler_that_a_checkpoint_lacks_is_not_part_of_its_key(checkpoint):
    from transformers import ViTForImageClassification, ViTModel

    folder = checkpoint("vit")
    ViTForImageClassification(ViTModel.from_pretrained(folder).config).save_pretrained(folder)
    first, second = (load_image_backbone(str(folder)) for _ in range(2))
    assert "pooler.dense.weight" in first.model.state_dict()
    assert first.config.weights == second.config.weights


def test_a_checkpoint_from_the_hub_has_the_commit_that_was_found(checkpoint, monkeypatch):
    folder = checkpoint("vit")
    cached = folder.parent / "snapshots" / ("0123456789" * 4)
    shutil.copytree(folder, cached)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *words, **options: asked.append(words) or str(cached)
    )
    assert load_image_backbone("me/vit", "main").config.revision == cached.name
    assert asked == [("me/vit",)]
    assert load_image_backbone(str(folder)).config.revision is None


def test_a_checkpoint_with_missing_weights_is_refused(checkpoint):
    from safetensors.torch import load_file, save_file

    weights = checkpoint("vit") / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "pooler" in name or "layernorm" in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"the image backbone '.*vit' lacks \d+ of its weights, the first is embeddings"
    ):
        load_image_backbone(str(weights.parent))


def test_pickled_weights_are_never_opened(checkpoint):
    folder = checkpoint("vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="choose a checkpoint that AutoModel loads from safetensors"):
        load_image_backbone(str(folder))
