"""The README.md of a model folder: what the model is, what it saw, how it scored on validation, what it is not for."""

from typing import Any

from builders.markdown import plain

_DERMNET = (
    "On the Kaggle copy of DermNet, the official split has byte copies and near-copies of training photographs in its"
    " test part, so scores of the protocol `official` are optimistic there; the protocol `clean` leaves copies out."
)


def model_card(config: dict[str, Any]) -> str:
    """The card of a model whose `config.json` holds `config`; the scores are validation's, which chose the epoch.

    Test scores, their intervals and the comparison with other models are the experiment's, in its `report.html`.
    """
    training = config["training"]
    best, settings = training.get("best", {}), training.get("config", {})
    parts = [("Image", config["image"]), ("Text", config["text"])]
    facts = [
        ("Fusion", plain(config["fusion"])),
        *(("Backbone, " + name.lower(), _backbone(part)) for name, part in parts if part),
        ("Classes", str(len(config["class_names"]))),
        ("Trained on", _trained_on(training, bool(settings.get("is_refit")))),
        ("Chosen on", f"{_count(training, 'n_validation')} validation photographs, epoch {best.get('epoch', '–')}"),
        ("Seed", str(training.get("seed", "–"))),
        ("Trained parameters", _count(training, "n_trained_parameters")),
        ("Validation accuracy", _score(best.get("validation_accuracy"))),
        ("Validation macro-F1", _score(best.get("validation_macro_f1"))),
        ("Temperature", _score(training.get("temperature"))),
        ("Dataset", plain(settings.get("dataset", "–"))),
        ("Description set", plain(settings.get("set_name") or "the dataset's primary one")),
        ("Descriptions by", plain((training.get("described_by") or {}).get("model", {}).get("id", "–"))),
        ("Dataset fingerprint", plain(training.get("fingerprint", "–"))),
        ("Dataset commit", plain(training.get("commit") or "–")),
    ]
    lines = [
        "---",
        "library_name: vl-dermnet",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("dermatology", "multimodal", "vision-language", "vl-dermnet")),
        "---",
        "",
        f"# {plain(config['fusion'])}, trained by vl-dermnet",
        "",
        "> **For research. Not a medical device, not for diagnosis, triage, treatment or any clinical use.**",
        "> Its text side was trained on descriptions that a machine wrote and no clinician reviewed.",
        "",
        "| fact | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts),
        "",
        "Probabilities are softmax of the logits over the temperature, which was fitted on validation alone.",
        _DERMNET,
        "",
        "## Use",
        "",
        "```bash",
        "vl-dermnet predict FOLDER photo.jpg --description 'What is seen'",
        "```",
        "",
        "```python",
        "from pathlib import Path",
        "from train.predict import Predictor",
        "",
        "answer = Predictor(Path('FOLDER')).predict(Path('photo.jpg'), 'What is seen')",
        "```",
        "",
        "```python",
        "import train.auto  # registers the classes",
        "from transformers import AutoModel, AutoProcessor",
        "",
        "model, processor = AutoModel.from_pretrained('FOLDER'), AutoProcessor.from_pretrained('FOLDER')",
        "logits = model(**processor(images=[photograph], text=['What is seen'])).logits",
        "```",
        "",
        "Without a description the image alone is judged, and the answer says so. Weights are safetensors; nothing in",
        "the folder is code.",
        "",
        "## Classes",
        "",
        *(f"- {plain(name)}" for name in config["class_names"]),
    ]
    return "\n".join(lines) + "\n"


def _trained_on(training: dict[str, Any], is_refit: bool) -> str:
    said = f"{_count(training, 'n_train')} photographs, protocol {plain(training.get('protocol', ''))}"
    if not is_refit:
        return said
    return f"{said}; then again with the validation photographs: the validation scores below are of the first fit"


def _backbone(part: dict[str, Any]) -> str:
    revision = f", revision {plain(part['revision'])}" if part.get("revision") else ""
    return f"{plain(part['source'])} ({plain(part['architecture'])}){revision}"


def _count(training: dict[str, Any], name: str) -> str:
    return f"{training[name]:,}" if name in training else "–"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
