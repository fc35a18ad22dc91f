"""Settings of whole experiments, and beside each what its source leaves open: plain values, one entry a recipe."""

from dataclasses import dataclass
from typing import Any

from train.config import PAPER_MODELS


@dataclass(frozen=True, slots=True)
class Recipe:
    """`settings` are fields of `TrainConfig`; `assumptions` say why those that the source does not tell are so."""

    title: str
    settings: dict[str, Any]
    assumptions: tuple[str, ...]


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        title="the six rows of La Quatra et al., Vision-Language Multimodal Fusion in Dermatological Disease "
        "Classification",
        settings={
            "models": PAPER_MODELS,
            "n_seeds": 5,
            "protocol": "both",
            "is_frozen": False,
            "image_backbone": "google/vit-base-patch16-224-in21k",
            "text_backbone": "google-bert/bert-base-uncased",
            "max_text_tokens": 256,
            "epochs": 10,
            "batch_size": 32,
            "lr": 1e-3,
            "image_lr": 5e-5,
            "text_lr": 2e-5,
            "weight_decay": 0.05,
            "warmup_fraction": 0.1,
            "label_smoothing": 0.0,
            "imbalance": "none",
            "hidden_dims": (),
            "is_augmented": True,
        },
        assumptions=(
            "Checkpoints: the slides say ViT and BERT; these two are the usual base-sized ones, of ImageNet-21k and "
            "English, and a public ViT of this checkpoint reaches the paper's image-only accuracy on DermNet.",
            "Learning rates, weight decay, warm-up, batch size and epochs are not in the slides: usual values for "
            "fine-tuning base-sized encoders, larger for the new head, and a cosine down to zero.",
            "Validation: the slides name none. A tenth of train is held out by groups of copies; the epoch with the "
            "best macro-F1 there is tested, once.",
            "Seeds: the paper reports one run. Five are trained, because seeds differ by about as much as its rows.",
            "Augmentation (flips and shifts) is not in the slides; texts stay as they are.",
            "Text length: descriptions beyond 256 tokens are cut, and counted.",
            "Gating: 'sigmoid feature selection' is read as sigmoid(W [v; t] + b) * [v; t]; gmu is there as well.",
            "Dual FiLM: gamma and beta are predicted by one linear layer per direction, which starts at zero.",
            "F1 is macro: on this test set a weighted F1 would lie near the accuracy, and the published ones do not.",
            "Descriptions: which InternVL, and its settings, the slides do not say; a dataset's provenance tells them.",
            "Split: official is Kaggle's, as in the paper, whose test holds copies of train; clean is beside it.",
        ),
    )
}
