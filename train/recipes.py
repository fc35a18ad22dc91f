"""Settings of whole experiments, and beside each what its source leaves open: plain values, one entry a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import PAPER_MODELS


@dataclass(frozen=True, slots=True)
class Assumption:
    """Why something that the source leaves open is so; `settings` are the fields of `TrainConfig` that it explains."""

    text: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """`settings` are fields of `TrainConfig`; `assumptions` say why those that the source does not tell are so."""

    title: str
    settings: dict[str, Any]
    assumptions: tuple[Assumption, ...]


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        title="the six rows of La Quatra et al., Vision-Language Multimodal Fusion in Dermatological Disease "
        "Classification",
        settings={
            "models": PAPER_MODELS,
            "n_seeds": 5,
            "protocol": "both",
            "is_frozen": False,
            "image_layers": None,
            "text_layers": None,
            "lora": None,
            "image_backbone": "google/vit-base-patch16-224-in21k",
            "image_revision": None,
            "text_backbone": "google-bert/bert-base-uncased",
            "text_revision": None,
            "max_text_tokens": 256,
            "epochs": 10,
            "head_epochs": 0,
            "batch_size": 32,
            "lr": 1e-3,
            "image_lr": 5e-5,
            "text_lr": 2e-5,
            "weight_decay": 0.05,
            "warmup_fraction": 0.1,
            "label_smoothing": 0.0,
            "imbalance": "none",
            "hidden_dims": (),
            "dropout": 0.0,
            "is_augmented": True,
            "caches_frozen_blocks": False,
            "modality_dropout": 0.0,
            "ema": 0.0,
            "patience": None,
            "is_refit": False,
            "is_bf16": False,
        },
        assumptions=(
            Assumption(
                "Checkpoints: the slides say ViT and BERT; these two are the usual base-sized ones, of ImageNet-21k "
                "and English, and a public ViT of this checkpoint reaches the paper's image-only accuracy on DermNet. "
                "The newest commit of each is taken, and written into every model's folder.",
                ("image_backbone", "image_revision", "text_backbone", "text_revision"),
            ),
            Assumption(
                "Learning rates, weight decay, warm-up, batch size and epochs are not in the slides: usual values for "
                "fine-tuning base-sized encoders, larger for the new head, and a cosine down to zero.",
                ("lr", "image_lr", "text_lr", "weight_decay", "warmup_fraction", "batch_size", "epochs", "head_epochs"),
            ),
            Assumption(
                "Fine-tuned, as a column of the slides says: of which layers, and on which loss, it does not say. Here "
                "the whole encoders, on cross-entropy without smoothing or weights.",
                ("is_frozen", "image_layers", "text_layers", "lora", "label_smoothing", "imbalance"),
            ),
            Assumption(
                "Optimiser: not in the slides. AdamW in single precision, gradients clipped at a norm of 1; no moving "
                "average of the weights, and no modality is left out in training.",
                ("is_bf16", "ema", "modality_dropout"),
            ),
            Assumption(
                "Validation: the slides name none. A tenth of train is held out by groups of copies; the epoch with "
                "the best macro-F1 there is tested, once. No fit is ended early, and none is made again with all rows.",
                ("patience", "is_refit"),
            ),
            Assumption(
                "Seeds: the paper reports one run. Five are trained, because seeds differ by about as much as its "
                "rows.",
                ("n_seeds",),
            ),
            Assumption(
                "Augmentation (flips and shifts) is not in the slides; texts stay as they are.",
                ("is_augmented", "caches_frozen_blocks"),
            ),
            Assumption("Text length: descriptions beyond 256 tokens are cut, and counted.", ("max_text_tokens",)),
            Assumption("Head: not in the slides; one linear layer.", ("hidden_dims", "dropout")),
            Assumption(
                "Pooled vectors: the slides do not say. Of each encoder the class token of its last hidden state, "
                "without a pooler; it and the tokens are standardised before the fusion, with the mean and the "
                "standard deviation per dimension over train under the encoders as downloaded."
            ),
            Assumption("Attention pooling: the scores of all tokens start equal."),
            Assumption(
                "Gating: 'sigmoid feature selection' is read as sigmoid(W [v; t] + b) * [v; t]; gmu is there as well."
            ),
            Assumption(
                "Dual FiLM: gamma and beta are predicted by one linear layer per direction, which starts at zero."
            ),
            Assumption(
                "F1 is macro: on this test set a weighted F1 would lie near the accuracy, and the published ones do "
                "not."
            ),
            Assumption(
                "Descriptions: which InternVL, and its settings, the slides do not say; a dataset's provenance tells "
                "them."
            ),
            Assumption(
                "Split: official is Kaggle's, as in the paper, whose test holds copies of train; clean is beside it.",
                ("protocol",),
            ),
        ),
    )
}


def assumed(config: Mapping[str, Any]) -> list[str]:
    """Every assumption of the recipe that a resolved `config` names, and where it was overridden; else nothing."""
    recipe = RECIPES.get(config.get("recipe") or "")
    if recipe is None:
        return []
    overridden: list[str] = list(config["recipe_overrides"])

    def here(names: list[str]) -> str:
        return ", ".join(f"{name} = {_shown(config[name])}" for name in names)

    said = [f"Recipe {config['recipe']}: {recipe.title}; overridden: {here(overridden) or 'nothing'}."]
    for each in recipe.assumptions:
        other = [name for name in each.settings if name in overridden]
        said.append(each.text + (f" Not so here: {here(other)}." if other else ""))
    return said


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value) or "none"
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)
