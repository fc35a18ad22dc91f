"""What stood for image and text in an experiment, in words: its encoders, and where its texts came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.files import read_json
from train.recipes import RECIPES, assumed

_PAPER = RECIPES["paper"].settings


@dataclass(frozen=True, slots=True)
class Origin:
    """`image` and `text` name the encoders: None where the folder does not tell, "" for the paper's own.

    `about` are sentences: on encoders that are not the paper's, and of a recipe on all that it assumes. `texts` is one
    more, on who wrote the texts.
    """

    image: str | None
    text: str | None
    about: tuple[str, ...]
    texts: str


def read_origin(experiment: Path) -> Origin:
    """Of an experiment folder, from its `config.json`; where there is none, little is said."""
    path = experiment / "config.json"
    config: dict[str, Any] = read_json(path) if path.is_file() else {}
    image, text = (_encoder(config, kind) for kind in ("image", "text"))
    named = [f"image {image}" if image else "", f"text {text}" if text else ""]
    others = ", ".join(name for name in named if name)
    about = [f"Not the paper's encoders, which are ViT and BERT: {others}."] if others else []
    assumptions: list[str] = config.get("assumptions", assumed(config))
    return Origin(image, text, (*about, *assumptions), said_of_texts(config, config.get("described_by")))


def said_of_texts(config: Mapping[str, Any], described_by: Mapping[str, Any] | None) -> str:
    """Who wrote the texts of an experiment with the settings `config`; `described_by` is run.json of its set."""
    if config.get("features"):
        return (
            f"No texts were read: text stands for features from a file ({_given(config, 'text') or 'none'}), supplied "
            "with the data; who wrote what they are of is not known here."
        )
    if not config:
        return "Who wrote the texts is not told: config.json is not in this folder."
    if described_by is None:
        return "Descriptions are machine-written, by the VLM that the dataset's card names."
    model = described_by["model"]
    revision = f" at {str(model['revision'])[:12]}" if model.get("revision") else ""
    if described_by["engine"]["kind"] == "scripted":
        return f"Descriptions come from a table, under the name of {model['id']} (engine scripted): no VLM wrote them."
    return f"Descriptions are machine-written, by {model['id']}{revision}."


def _encoder(config: Mapping[str, Any], kind: str) -> str | None:
    """The encoder's name, without its owner or place; "" for the one that stands for the paper's."""
    if not config:
        return None
    if config.get("features"):
        return _given(config, kind) or None
    source = config.get(f"{kind}_backbone")
    return "" if source == _PAPER[f"{kind}_backbone"] else Path(str(source)).name if source else None


def _given(config: Mapping[str, Any], kind: str) -> str:
    """What features from files are of, as the experiment was told; else the names of their arrays."""
    names: list[str] = config[f"{kind}_features"]
    told: str = config.get(f"{kind}_features_of") or ""
    return told or (f"{len(names)} arrays, {names[0]} to {names[-1]}" if len(names) > 2 else " + ".join(names))
