"""train/trained.py: what is trained changes, what is not stays to the last bit, and adapters leave plain models."""

import sys

import pytest
import torch

from builders.errors import UserError
from builders.torch_repair import repair
from train.backbones import BackboneConfig, TextBackbone, load_model
from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.inputs import LiveInputs
from train.loop import fit, predict_logits
from train.model import FusionModel
from train.trained import choose_trained, last_blocks, set_training, trained_weights

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = SHAPES["tiny"]
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(TINY, 60)


def config(**options):
    settings = {"epochs": 2, "batch_size": 16, "image_lr": 1e-2, "text_lr": 1e-2, **options}
    return TrainConfig(dataset="x", out="x", **settings)


def model_of(name="attention_pooling"):
    return FusionModel(name, CLASS_NAMES, *random_backbones(TINY))


def fitted(**options):
    model = model_of()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    inputs = LiveInputs(PIXELS, TEXTS, torch.device("cpu"), is_augmented=True)
    done = fit(model, inputs, LABELS, SPLIT, config(**options), 0, lambda _: None)
    changed = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    return model, inputs, done, changed


def test_only_the_last_blocks_and_what_follows_them_change():
    model, _, done, changed = fitted(image_layers=1, text_layers=0)
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("image.model.layers.1.", "image.model.layernorm.", "fusion."))
    }
    assert changed == expected
    assert done.n_trained == sum(p.numel() for name, p in model.named_parameters() if name in expected)


def test_frozen_blocks_record_no_graph_and_predict_while_others_train():
    model = model_of()
    choose_trained(model, config(text_layers=1, image_layers=0))
    set_training(model)
    first, second = model.text.model.encoder.layer
    seen = {}
    for name, block in (("first", first), ("second", second)):
        block.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    inputs = LiveInputs(PIXELS, TEXTS, torch.device("cpu"), is_augmented=False)
    inputs.features(model, SPLIT.train[:4])
    outputs = {name: out[0] if isinstance(out, tuple) else out for name, out in seen.items()}
    assert (outputs["first"].requires_grad, outputs["second"].requires_grad) == (False, True)
    assert {module.training for module in first.modules()} == {False}
    assert {module.training for module in second.modules()} == {True}
    assert not model.text.model.embeddings.dropout.training
    assert not model.image.model.training


def test_more_blocks_than_there_are_is_a_clear_error():
    with pytest.raises(UserError) as raised:
        fitted(image_layers=5)
    assert str(raised.value) == (
        "--image-layers is 5, and ViTModel has 2 blocks\n"
        "  fix: --image-layers 2, or leave it out to train the embeddings too"
    )


def test_frozen_backbones_and_a_part_to_train_contradict_each_other():
    with pytest.raises(UserError, match="--frozen trains no backbone, and --lora says how to train one"):
        config(is_frozen=True, lora=4)


@pytest.mark.parametrize(
    ("architecture", "options", "last"),
    [
        ("ConvNext", {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 2, 1]}, "encoder.stages.3"),
        ("Dinov2", {"image_size": 28}, "encoder.layer.1"),
        ("SiglipVision", {"image_size": 28}, "encoder.layers.1"),
        ("CLIPVision", {"image_size": 28}, "encoder.layers.1"),
        ("ModernBert", {"vocab_size": 50, "pad_token_id": 0}, "layers.1"),
    ],
)
def test_the_blocks_of_other_encoders_are_found(architecture, options, last):
    repair()
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    options = options if architecture == "ConvNext" else {**sizes, **options}
    encoder = getattr(transformers, f"{architecture}Model")(getattr(transformers, f"{architecture}Config")(**options))
    about = BackboneConfig(source="x", revision=None, architecture="x", pooling="mean", skips_first=False, dim=16)
    names = [name for name, _ in last_blocks(TextBackbone(encoder, about, None), 1, "--image-layers")]
    assert len(names) == 1
    assert names[0].endswith(last)


def test_adapters_train_little_and_are_merged_into_plain_backbones(tmp_path):
    model, inputs, done, changed = fitted(lora=2)
    linear = {
        f"{side}.model.{name}.weight"
        for side, backbone in (("image", model.image), ("text", model.text))
        for name, module in backbone.model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layer" in f".{name}"
    }
    assert {name for name in changed if not name.startswith("fusion.")} == linear
    per_block = 2 * (4 * (16 + 16) + (16 + 64) + (64 + 16))  # rank 2 on four square and two wide matrices
    assert done.n_trained == 2 * 2 * per_block + model.fusion.n_parameters
    assert (type(model.image.model).__name__, type(model.text.model).__name__) == ("ViTModel", "BertModel")
    model.image.model.save_pretrained(tmp_path / "vit")
    loaded = load_model(tmp_path / "vit", "ViTModel")
    assert all(torch.equal(loaded.state_dict()[name], w) for name, w in model.image.model.state_dict().items())


def test_the_merged_model_answers_as_the_adapted_one_did_on_validation():
    model, inputs, done, _ = fitted(lora=4)
    logits = torch.from_numpy(predict_logits(model, inputs, SPLIT.validation, 16))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[SPLIT.validation]))
    assert float(loss) == pytest.approx(done.best.validation_loss, rel=1e-4)


def test_adapters_go_into_the_last_blocks_where_those_are_chosen():
    model = model_of()
    choose_trained(model, config(lora=2, image_layers=1, text_layers=0))
    adapted = {name for name in trained_weights(model) if "lora" in name}
    assert adapted
    assert all(".layers.1." in name for name in adapted)


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError) as raised:
        fitted(lora=2)
    assert str(raised.value) == (
        "--lora needs a package that is not installed: peft\n  fix: pip install 'vl-dermnet[train]'"
    )
