"""What is computed after a fit: files that say what the model does, each number computed again from its weights."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from builders.torch_repair import repair
from train.attention_maps import PERCENTS, PatchGrid, attention_of, patch_grid
from train.backbones import load_image_backbone, load_text_backbone
from train.calibration import fit_temperature, nll, softmax
from train.config import TrainConfig
from train.data import Examples, Split
from train.evaluate import CLASS_NAMES, PIXELS, write_evaluation
from train.inputs import CachedInputs, LiveInputs
from train.loop import measure_scaling, predict_logits
from train.model import FusionModel, no_features
from train.pixel_deletion import PERCENTS as PIXEL_PERCENTS
from train.pixel_deletion import pixel_deletion_test
from train.pixels import PixelConfig
from train.texts import tokenise
from train.word_spans import word_spans

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("acne", "eczema", "wart")
TEXTS = ["A spotted lesion, red.", "scaly", "", "Red spotted scaly lesion on spotted skin."]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
N = 40
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """A random ViT of 4 × 4 patches and a class token, and a random BERT whose "spotted" is two pieces."""
    repair()
    import transformers

    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=16, patch_size=4)).save_pretrained(folder / "vit")
    processor = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "A", "spot", "##ted", "lesion", ",", ".", "red", "Red", "sca", "##ly"]
    words += ["on", "skin"]
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=len(words))).save_pretrained(folder / "bert")
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "bert")
    return load_image_backbone(str(folder / "vit")).eval(), load_text_backbone(str(folder / "bert")).eval()


@pytest.fixture(scope="module")
def parts(backbones):
    """Examples with random pixels, their split, and the same inputs live and cached."""
    image, text = backbones
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    texts = [TEXTS[i % len(TEXTS)] for i in range(N)]
    tokens = tokenise(text.tokenizer, texts, 64)
    live = LiveInputs(pixels, tokens, torch.device("cpu"), is_augmented=False)
    with torch.inference_mode():
        seen = image(torch.from_numpy(pixels))
        read = text(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.mask))
    cached = CachedInputs(
        (seen.tokens.numpy(), seen.pooled.numpy()), (read.tokens.numpy(), read.pooled.numpy()), tokens.mask, live.device
    )
    examples = Examples(
        image_ids=[f"{i:016x}" for i in range(N)],
        image_sha256s=[f"{i:064x}" for i in range(N)],
        labels=rng.integers(0, 3, N),
        class_names=CLASSES,
        texts=texts,
        groups=[str(i // 2) for i in range(N)],
        splits={},
        read_image=None,
        n_without_text=N // 4,
    )
    return examples, Split(np.arange(0, 16), np.arange(16, 24), np.arange(24, N)), live, cached


@pytest.fixture
def model(backbones, parts):
    """A function that gives a model whose scores are random, so that its attention is not uniform."""

    def make(name="attention_pooling"):
        torch.manual_seed(1)
        made = FusionModel(name, CLASSES, *backbones)
        for parameter in made.fusion.parameters():
            torch.nn.init.normal_(parameter)
        measure_scaling(made, parts[3], parts[1].train, 8)
        return made.eval()

    return make


@pytest.fixture
def evaluate(parts, tmp_path):
    """A function that evaluates a model into `tmp_path` and gives the result and a function that reads its files."""
    examples, split, _, cached = parts

    def call(made, inputs=cached, examples=examples, name="attention_pooling-official-0"):
        config = TrainConfig(dataset="x", out=tmp_path, batch_size=8)
        found = write_evaluation(tmp_path, name, made, inputs, examples, split, config)
        return found, lambda kind: pq.read_table(tmp_path / kind / f"{name}.parquet")

    return call


@pytest.mark.parametrize("which", [2, 3], ids=["live", "cached"])
def test_validation_and_test_logits_are_the_models(evaluate, model, parts, which):
    examples, split, inputs = parts[0], parts[1], parts[which]
    made = model()
    found, read = evaluate(made, inputs)
    expected = predict_logits(made, inputs, split.validation, 3)
    table = read("validation")
    np.testing.assert_allclose(np.stack(table["logits"].to_pylist()), expected, rtol=1e-4, atol=1e-5)
    assert json.loads(table.schema.metadata[CLASS_NAMES]) == list(CLASSES)
    labels = examples.labels[split.validation]
    grid = [nll(softmax(expected, t), labels) for t in np.geomspace(0.05, 20, 500)]
    assert nll(softmax(expected, found.temperature), labels) <= min(grid) + 1e-6
    np.testing.assert_allclose(found.test_logits, predict_logits(made, inputs, split.test, 5), rtol=1e-4, atol=1e-5)


def test_test_labels_have_no_part_in_the_temperature(evaluate, model, parts):
    examples, split = parts[0], parts[1]
    labels = examples.labels.copy()
    labels[split.test] = (labels[split.test] + 1) % 3  # a canary
    changed = Examples(**{name: getattr(examples, name) for name in examples.__slots__} | {"labels": labels})
    assert evaluate(model(), examples=changed)[0].temperature == evaluate(model())[0].temperature


def weights_by_hand(made, parts, row):
    """Softmax over scaled tokens, from the weights alone: image, text."""
    examples, _, _, cached = parts
    fusion = {name: value.numpy().astype(float) for name, value in made.fusion.state_dict().items()}
    both = []
    for kind, (tokens, _), mask in (
        ("image", cached.image, slice(None)),
        ("text", cached.text, cached.text_mask[row]),
    ):
        scaling = made.scaling[f"{kind}_tokens"]
        scaled = (tokens[row][mask] - scaling.mean.numpy()) / scaling.sd.numpy()
        scores = scaled @ fusion[f"{kind}_score.weight"][0]
        exponentials = np.exp(scores - scores.max()) if len(scores) else scores
        both.append((scaled, exponentials / exponentials.sum() if len(scores) else scores))
    return both, fusion


def test_heat_maps_and_word_weights_are_the_fusions_attention(evaluate, model, parts):
    examples = parts[0]
    made = model()
    table = evaluate(made)[1]("attention")
    assert PixelConfig.model_validate_json(table.schema.metadata[PIXELS]).crop_px == (16, 16)
    assert len(table) == 16
    for row in table.to_pylist():
        i = examples.image_ids.index(row["image_id"])
        ((_, on_image), (_, on_text)), _ = weights_by_hand(made, parts, i)
        assert (row["patch_rows"], row["patch_columns"]) == (4, 4)
        assert row["patch_weights"] == pytest.approx(on_image[1:], rel=1e-3)
        assert row["class_token_weight"] == pytest.approx(on_image[0], rel=1e-3)
        words = [row["text"][a:b] for a, b in zip(row["word_starts"], row["word_ends"], strict=True)]
        if row["text"] == "A spotted lesion, red.":  # [CLS] A spot ##ted lesion , red . [SEP]
            assert words == ["A", "spotted", "lesion", ",", "red", "."]
            expected = [on_text[1], on_text[2] + on_text[3], *on_text[4:8]]
            assert row["word_weights"] == pytest.approx(expected, rel=1e-3)
            assert row["special_token_weight"] == pytest.approx(on_text[0] + on_text[8], rel=1e-3)
        if row["text"]:
            assert sum(row["word_weights"]) + row["special_token_weight"] == pytest.approx(1, rel=1e-5)
        else:
            assert (row["word_weights"], row["n_words_read"]) == ([], 0)


def test_padding_has_a_weight_of_exactly_zero_and_no_influence(model, parts):
    made = model()
    rows = np.arange(4)  # texts of several lengths, one of them empty
    features = parts[3].features(made, rows)
    _, _, weights = attention_of(made, features)
    assert (weights[~features.text_mask] == 0).all()
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1, 0, 1], abs=1e-6)


def test_without_text_is_a_row_that_has_none_and_without_image_all_images_are_alike(evaluate, model, parts):
    examples, split, live, _ = parts
    made = model()
    table = evaluate(made)[1]("missing")
    texts = table.filter(np.asarray(table["missing"]) == "text")
    assert texts["image_id"].to_pylist() == [examples.image_ids[row] for row in split.test]
    with torch.inference_mode():
        pixels = torch.from_numpy(live.pixels[split.test])
        nothing = torch.zeros(len(split.test), 1, dtype=torch.long)
        expected = made(made.encode(pixels, nothing, nothing.bool(), len(split.test)))
    np.testing.assert_allclose(np.stack(texts["logits"].to_pylist()), expected.numpy(), rtol=1e-3, atol=1e-4)
    images = table.filter(np.asarray(table["missing"]) == "image").to_pylist()
    by_text = {}
    for row in images:
        by_text.setdefault(examples.texts[examples.image_ids.index(row["image_id"])], []).append(row["logits"])
    assert all(np.allclose(each, logits[0], atol=1e-5) for logits in by_text.values() for each in logits)
    assert len({tuple(np.round(logits[0], 3)) for logits in by_text.values()}) == len(TEXTS)


def test_the_deletion_test_is_what_deleting_by_hand_gives(evaluate, model, parts):
    examples = parts[0]
    made = model()
    rows = evaluate(made)[1]("deletion").to_pylist()
    assert {(row["modality"], row["percent"]) for row in rows} == {(m, p) for m in ("image", "text") for p in PERCENTS}
    for row in [row for row in rows if row["modality"] == "image"]:
        i = examples.image_ids.index(row["image_id"])
        ((image, on_image), (text, on_text)), fusion = weights_by_hand(made, parts, i)
        n_deleted = max(1, round(row["percent"] / 100 * 16))
        gone = 1 + np.argsort(-on_image[1:])[:n_deleted]
        kept = np.setdiff1d(np.arange(17), gone)
        pooled = [on_image[kept] / on_image[kept].sum() @ image[kept], on_text @ text if len(text) else np.zeros(16)]
        logits = fusion["classify.weight"] @ np.concatenate(pooled) + fusion["classify.bias"]
        expected = softmax(logits[None])[0, examples.labels[i]]
        assert row["without_top"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert 0 <= row["without_random"] <= 1


@pytest.mark.parametrize("which", [2, 3], ids=["live", "cached"])
def test_patches_painted_over_are_seen_by_the_backbone_as_by_hand(evaluate, model, parts, which):
    examples, split, live, cached = parts
    made = model()
    inputs = live if which == 2 else CachedInputs(cached.image, cached.text, cached.text_mask, CPU, live.pixels)
    rows = [row for row in evaluate(made, inputs)[1]("deletion").to_pylist() if row["modality"] == "photograph"]
    assert len(rows) == len(PIXEL_PERCENTS) * len(split.test)
    for row in rows:
        i = examples.image_ids.index(row["image_id"])
        ((_, on_image), _), _ = weights_by_hand(made, parts, i)
        pixels = live.pixels[i].copy()
        mean = pixels.reshape(-1, 3).mean(axis=0).round()
        for patch in np.argsort(-on_image[1:])[: round(row["percent"] / 100 * 16)]:
            top, left = 4 * (patch // 4), 4 * (patch % 4)
            pixels[top : top + 4, left : left + 4] = mean
        for key, seen in (("before", live.pixels[i]), ("without_top", pixels)):
            painted = LiveInputs(np.stack([seen] * N), live.texts, CPU, is_augmented=False)
            logits = predict_logits(made, painted, np.asarray([i]), 1)
            assert row[key] == pytest.approx(softmax(logits)[0, examples.labels[i]], rel=1e-3, abs=1e-6)
        assert 0 <= row["without_random"] <= 1


class OnePatch(torch.nn.Module):
    """Says "acne" as surely as the patch in the second row and third column of sixteen is bright, and sees no other."""

    def encode(self, pixels, token_ids, mask, n_rows):
        patch = pixels[:, 4:8, 8:12].float().mean(dim=(1, 2, 3))
        return replace(no_features(n_rows, CPU), image_pooled=patch[:, None])

    def forward(self, features):
        return torch.stack([features.image_pooled[:, 0] / 50, torch.zeros(1)], dim=1)


def test_weights_that_point_at_the_evidence_fall_further_than_random_ones_and_wrong_ones_do_not():
    pixels = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    pixels[:, 4:8, 8:12] = 250
    right, wrong = np.zeros(16, dtype=np.float32), np.zeros(16, dtype=np.float32)
    right[6], wrong[0] = 1, 1
    found = {}
    for name, weights in (("right", right), ("wrong", wrong)):
        tests = pixel_deletion_test(OnePatch(), no_features(1, CPU), pixels, weights, 0, 0, 0, PatchGrid(1, 4, 4))
        found[name] = tests[0]
    assert found["right"].before == found["wrong"].before > 0.99
    assert found["right"].without_top < found["right"].without_random - 0.2
    assert found["wrong"].without_top > 0.99
    places = PatchGrid(1, 4, 4)
    tests = [pixel_deletion_test(OnePatch(), no_features(1, CPU), pixels, right, 0, row, 0, places) for row in range(8)]
    random = {each[-1].without_random for each in tests}
    assert len(random) > 1  # each photograph has draws of its own, also among those of one class


def test_models_of_one_modality_have_no_files_about_two(evaluate, model, tmp_path):
    evaluate(model("image_only"), name="image_only-official-0")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["validation"]


def test_every_fusion_that_tells_its_attention_is_explained(evaluate, model):
    _, read = evaluate(model("learned_query_pooling"), name="learned_query_pooling-clean-3")
    assert len(read("deletion")) > 0
    for row in read("attention").to_pylist():
        assert sum(row["patch_weights"]) + row["class_token_weight"] == pytest.approx(1, rel=1e-4)


def test_words_behind_the_cut_are_known_as_not_read(backbones):
    tokenizer = backbones[1].tokenizer
    cut = word_spans(tokenizer, "A spotted lesion, red.", 5)  # [CLS] A spot ##ted [SEP]
    assert (cut.n_read, len(cut.spans)) == (2, 6)
    assert word_spans(tokenizer, "well-defined, 3 mm", 64).spans == ((0, 12), (12, 13), (14, 15), (16, 18))


def test_a_grid_is_told_from_the_patch_size_and_refused_where_it_does_not_fit(backbones):
    image = backbones[0]
    assert patch_grid(image, 17).n_before == 1
    assert (patch_grid(image, 21).n_before, patch_grid(image, 21).rows) == (5, 4)  # registers
    assert patch_grid(image, 13) is None


def test_a_temperature_is_that_of_the_validation_file(evaluate, model, parts):
    found, read = evaluate(model())
    table = read("validation")
    labels = np.asarray([CLASSES.index(label) for label in table["label"].to_pylist()])
    assert fit_temperature(np.stack(table["logits"].to_pylist()), labels) == found.temperature
