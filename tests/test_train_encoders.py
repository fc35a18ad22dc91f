"""DeiT, DINOv2 with registers, DINOv3, SigLIP 2, ModernBERT, RoBERTa: tiny ones, made and processed as published."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from builders.errors import UserError
from builders.torch_repair import repair
from train.backbones import load_image_backbone, load_text_backbone
from train.config import TrainConfig
from train.data import Split
from train.inputs import CachedInputs, LiveInputs, cache_image_features, cache_text_features
from train.loop import fit, predict_logits
from train.model import FusionModel, load_fusion_model, save_model
from train.pixels import resize_and_crop
from train.texts import tokenise

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": 16, "width": 16}
# As in the published preprocessor_config.json of each, but for sizes: here 16 pixels in patches of 4.
PROCESSORS = {
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 20, "width": 20},
        "do_center_crop": True,
        "crop_size": SQUARE,
        "resample": 3,
        **IMAGENET,
    },
    "dinov2_registers": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 20},
        "do_center_crop": True,
        "crop_size": SQUARE,
        "resample": 3,
        **IMAGENET,
    },
    "dinov3": {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": SQUARE, "resample": 2, **IMAGENET},
    "siglip2": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 2, **HALF},
    "naflex": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4, "max_num_patches": 16, **HALF},
}
# kind -> (architecture, how it is pooled, tokens before the 16 patches: class, distillation, registers)
IMAGE = {
    "deit": ("DeiTModel", "first", 2),
    "dinov2_registers": ("Dinov2WithRegistersModel", "first", 5),
    "dinov3": ("DINOv3ViTModel", "first", 5),
    "siglip2": ("SiglipVisionModel", "mean", 0),
}
TEXT = {
    "modernbert": ("ModernBertModel", "first"),
    "roberta": ("RobertaModel", "first"),
    "siglip2": ("SiglipTextModel", "mean"),
    "naflex": ("Siglip2TextModel", "mean"),
}
PAIRS = [("deit", "roberta"), ("dinov2_registers", "modernbert"), ("dinov3", "siglip2"), ("siglip2", "naflex")]
WORDS = ["a", "red", "papule", "with", "scale", "and", "crust"]
N_WORDS = 4 + len(WORDS)
SENTENCES = ["a red papule with scale and crust", "a papule", "", "red scale"]


def write_tokenizer(folder, kind):
    """BERT's and RoBERTa's put a class token in front; that of SigLIP 2, which is Gemma's, ends with one alone."""
    from transformers import PreTrainedTokenizerFast

    special = {"roberta": ["<s>", "<pad>", "</s>", "<unk>"]}.get(kind, ["[CLS]", "[PAD]", "[SEP]", "[UNK]"])
    start, padding, end, unknown = special
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind in ("roberta", "modernbert"):
        tokenizer.post_processor = processors.BertProcessing((end, 2), (start, 0))
        names = {"cls_token": start, "sep_token": end}
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 2)])
        names = {"eos_token": end}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=padding, unk_token=unknown, model_max_length=32, **names
    ).save_pretrained(folder)


def make_model(kind):
    import transformers as t

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {**sizes, "image_size": 16, "patch_size": 4}
    ids = {"vocab_size": N_WORDS, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    siglip = {"text_config": {**sizes, **ids, "max_position_embeddings": 40, "projection_size": 16}}
    match kind:
        case "deit":
            return t.DeiTModel(t.DeiTConfig(**vision))
        case "dinov2_registers":
            return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**vision, num_register_tokens=4))
        case "dinov3":
            return t.DINOv3ViTModel(t.DINOv3ViTConfig(**vision, num_register_tokens=4))
        case "siglip2":  # at a fixed size the published ones are of the model type siglip
            return t.SiglipModel(t.SiglipConfig(**siglip, vision_config=vision))
        case "naflex":
            return t.Siglip2Model(
                t.Siglip2Config(**siglip, vision_config={**sizes, "patch_size": 4, "num_patches": 16})
            )
        case "roberta":
            return t.RobertaModel(t.RobertaConfig(**sizes, **ids, max_position_embeddings=40))
        case _:
            ids |= {"cls_token_id": 0, "sep_token_id": 2}
            return t.ModernBertModel(t.ModernBertConfig(**sizes, **ids, local_attention=4))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function that gives the folder of a kind's checkpoint."""
    folder = tmp_path_factory.mktemp("encoders")
    repair()  # before transformers looks for torchvision

    def write(kind):
        if not (folder / kind).is_dir():
            torch.manual_seed(0)
            model = make_model(kind)
            with torch.no_grad():  # layer scales and biases too, so that nothing is the identity by accident
                for parameter in model.parameters():
                    parameter.normal_(std=0.2)
            model.save_pretrained(folder / kind)
            if kind in PROCESSORS:
                (folder / kind / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
            if kind in TEXT:
                write_tokenizer(folder / kind, kind)
        return str(folder / kind)

    return write


def photograph(width_px=37, height_px=29):
    """A smooth picture with an edge: noise alone would hide a shift, a flat one a wrong filter."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(coarse).resize((width_px, height_px), Image.Resampling.BICUBIC))
    image[height_px // 3 : height_px // 2, width_px // 4 : width_px // 3] = (250, 10, 60)
    return Image.fromarray(image)


@pytest.mark.parametrize("kind", IMAGE)
def test_a_photograph_gives_the_tokens_that_processor_and_automodel_give(checkpoint, kind):
    from transformers import AutoImageProcessor, AutoModel

    backbone = load_image_backbone(checkpoint(kind)).eval()
    architecture, pooling, n_before = IMAGE[kind]
    assert (backbone.config.architecture, backbone.config.pooling) == (architecture, pooling)
    packed = torch.from_numpy(resize_and_crop(photograph(), backbone.pixels).copy()).unsqueeze(0)
    encoded = backbone(packed)
    assert encoded.tokens.shape == (1, n_before + 16, 16)
    expected = encoded.tokens[:, 0] if pooling == "first" else encoded.tokens.mean(dim=1)
    torch.testing.assert_close(encoded.pooled, expected)

    # Pillow's backend rounds as ours; DINOv3 has torchvision's alone, which resizes floats.
    backend, most = ("torchvision", 1.01) if kind == "dinov3" else ("pil", 0.01)
    if backend == "torchvision":
        pytest.importorskip("torchvision")
    processor = AutoImageProcessor.from_pretrained(checkpoint(kind), backend=backend)
    theirs = processor(photograph(), return_tensors="pt")["pixel_values"]
    levels = (backbone.normalise(packed) - theirs) * backbone.std * 255  # of 256
    assert levels.abs().max() <= most
    whole = AutoModel.from_pretrained(checkpoint(kind)).eval()
    model = getattr(whole, "vision_model", whole)
    torch.testing.assert_close(encoded.tokens, model(backbone.normalise(packed)).last_hidden_state)


@pytest.mark.parametrize("kind", TEXT)
def test_a_description_gives_the_tokens_that_tokenizer_and_automodel_give(checkpoint, kind):
    from transformers import AutoModel, AutoTokenizer

    backbone = load_text_backbone(checkpoint(kind)).eval()
    assert (backbone.config.architecture, backbone.config.pooling) == TEXT[kind]
    texts = tokenise(backbone.tokenizer, SENTENCES, 32)
    mask = torch.from_numpy(texts.mask)
    encoded = backbone(torch.from_numpy(texts.token_ids), mask)
    assert encoded.tokens.shape == (len(SENTENCES), mask.shape[1], 16)
    assert (encoded.tokens[~mask] == 0).all()
    whole = AutoModel.from_pretrained(checkpoint(kind)).eval()
    model = getattr(whole, "text_model", whole)
    for row, text in enumerate(SENTENCES):
        if not text:
            assert (encoded.pooled[row] == 0).all()
            continue
        alone = AutoTokenizer.from_pretrained(checkpoint(kind))(text, return_tensors="pt")
        hidden = model(input_ids=alone["input_ids"], attention_mask=alone["attention_mask"]).last_hidden_state[0]
        torch.testing.assert_close(encoded.tokens[row, : len(hidden)], hidden, rtol=1e-4, atol=1e-4)
        summary = hidden[0] if TEXT[kind][1] == "first" else hidden.mean(dim=0)
        torch.testing.assert_close(encoded.pooled[row], summary, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_for_patches_of_differing_shapes_says_which_one_to_take(checkpoint):
    with pytest.raises(UserError, match="takes patches of differing shapes") as raised:
        load_image_backbone(checkpoint("naflex"))
    assert "google/siglip2-base-patch16-224 for …-naflex" in str(raised.value)


MODES = {"frozen": {"is_frozen": True}, "lora": {"lora": 2}, "fine-tuned": {}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("image_kind", "text_kind"), PAIRS)
def test_training_changes_what_its_mode_says_and_the_model_is_saved(checkpoint, tmp_path, image_kind, text_kind, mode):
    image, text = load_image_backbone(checkpoint(image_kind)).eval(), load_text_backbone(checkpoint(text_kind)).eval()
    model = FusionModel("attention_pooling", ("a", "b"), image, text)
    rows, rng = np.arange(12), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(rows), 16, 16, 3), dtype=np.uint8)
    texts = tokenise(text.tokenizer, (SENTENCES * 3)[: len(rows)], 32)
    inputs = LiveInputs(pixels, texts, torch.device("cpu"), is_augmented=False)
    if mode == "frozen":
        features = (
            cache_image_features(image, pixels, "key", tmp_path, lambda _: None),
            cache_text_features(text, texts, tmp_path, lambda _: None),
        )
        inputs = CachedInputs(*features, texts.mask, torch.device("cpu"))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = TrainConfig(dataset="x", out="x", epochs=1, batch_size=8, image_lr=0.01, text_lr=0.01, **MODES[mode])
    done = fit(model, inputs, rows % 2, Split(rows[:8], rows[8:10], rows[10:]), config, 0, lambda _: None)
    assert np.isfinite(done.best.validation_loss)
    after = model.state_dict()
    assert list(after) == list(before)  # adapters are merged
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for part, n_blocks in (("image.model.", 2), ("text.model.", 2)):
        of_part = {name for name in changed if name.startswith(part)}
        in_blocks = {name for name in of_part if any(f".{number}." in name for number in range(n_blocks))}
        if mode == "frozen":
            assert not of_part
        else:
            assert {number for number in range(n_blocks) if any(f".{number}." in name for name in in_blocks)} == {0, 1}
            assert (of_part == in_blocks) == (mode == "lora")
        if mode == "lora":
            assert all(before[name].ndim == 2 for name in of_part)
    assert any(name.startswith("fusion.") for name in changed)

    expected = predict_logits(model, LiveInputs(pixels, texts, torch.device("cpu"), is_augmented=False), rows, 8)
    save_model(model, tmp_path / "saved", 32, training={})
    again, _ = load_fusion_model(tmp_path / "saved")
    loaded = predict_logits(again, LiveInputs(pixels, texts, torch.device("cpu"), is_augmented=False), rows, 8)
    np.testing.assert_allclose(loaded, expected, rtol=1e-5, atol=1e-5)
