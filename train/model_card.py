"""The README.md of a model folder: what the model is, what it saw, how its kind scored, what it is not for."""

from pathlib import Path
from typing import Any

from builders.files import read_json, write_atomic
from builders.markdown import plain
from train.given_tower import ARCHITECTURE
from train.origin import said_of_texts

_DERMNET = (
    "On the Kaggle copy of DermNet, the official split has byte copies and near-copies of training photographs in its"
    " test part, so scores of the protocol `official` are optimistic there; the protocol `clean` leaves copies out."
)


def refresh_cards(experiment: Path, table: dict[str, Any]) -> None:
    """Write the card of every model in an experiment's folder again, with what `table`, of `results.json`, says."""
    for file in sorted((experiment / "models").glob("*/config.json")):
        text, card = model_card(read_json(file), table), file.with_name("README.md")
        if not card.is_file() or card.read_text(encoding="utf-8") != text:
            write_atomic(card, lambda part, text=text: part.write_text(text, encoding="utf-8"))


def model_card(config: dict[str, Any], table: dict[str, Any] | None = None) -> str:
    """The card of a model whose `config.json` holds `config`: validation's scores, which chose the epoch, are its own.

    Test scores are those of its kind in `table`, over all seeds and protocols of the experiment; without a table they
    are left out, with the place where they will be.
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
        *([_of_texts(settings, training.get("described_by"))] if config["text"] else []),
        "",
        "| fact | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts),
        "",
        "Probabilities are softmax of the logits over the temperature, which was fitted on validation alone.",
        _DERMNET,
        "",
        "## Test scores",
        "",
        *_test_scores(config["fusion"], table),
        "",
        "## Use",
        "",
        *_use(parts),
        "",
        "## Classes",
        "",
        *(f"- {plain(name)}" for name in config["class_names"]),
    ]
    return "\n".join(lines) + "\n"


def _use(parts: list[tuple[str, dict[str, Any] | None]]) -> list[str]:
    given = [plain(part["source"]) for _, part in parts if part and part["architecture"] == ARCHITECTURE]
    if given:
        return [
            f"A head on features from a file ({', '.join(given)}): it has no encoder, so it cannot be asked about a",
            "photograph. Its weights are safetensors; nothing in the folder is code.",
        ]
    return [
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
    ]


def _of_texts(settings: dict[str, Any], described_by: dict[str, Any] | None) -> str:
    said = f"> Of its text side: {plain(said_of_texts(settings, described_by))}"
    return said if settings.get("features") else f"{said} No clinician reviewed them."


def _test_scores(fusion: str, table: dict[str, Any] | None) -> list[str]:
    """A line per protocol: mean and standard deviation over seeds, intervals, and the difference to the image alone."""
    rows = [row for row in (table or {}).get("rows", []) if row["model"] == fusion]
    if not rows:
        return ["They are in the experiment's `results.json` and `report.html`."]
    (row,) = rows
    lines = [
        "Of this kind of model, over the seeds of its experiment, each tested once; accuracy in %, 95 % intervals by",
        "bootstrap over seeds and groups of test photographs. Two protocols have two test sets: do not compare across.",
        "",
        "| protocol | seeds | test photographs | accuracy | 95 % | macro-F1 | 95 % | accuracy − image only, 95 % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for protocol, ours in row["ours"].items():
        accuracy = _mean(ours["accuracy_mean"], ours["accuracy_sd"], 1)
        macro_f1 = _mean(ours["macro_f1_mean"], ours["macro_f1_sd"], 3)
        delta = row["against_image_only"].get(protocol, {}).get("accuracy")
        difference = "–" if delta is None else f"{_signed(delta['mean'])}, {_interval(delta, '+.1f')}"
        lines.append(
            f"| {plain(protocol)} | {ours['n_seeds']} | {ours['n_test']:,} | {accuracy}"
            f" | {_interval(ours['accuracy_bootstrap'], '.1f')} | {macro_f1}"
            f" | {_interval(ours['macro_f1_bootstrap'], '.3f')} | {difference} |"
        )
    return lines


def _mean(mean: float, sd: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _interval(interval: dict[str, float], form: str) -> str:
    return f"{format(interval['low'], form)} to {format(interval['high'], form)}".replace("-", "−")


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
