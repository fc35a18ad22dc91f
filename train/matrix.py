"""The matrix of an experiment: which runs it is of, what they are called, and which are finished."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from builders.errors import UserError, choose
from builders.files import read_json
from train.config import EMAP, READ_AGAIN, Protocol, TrainConfig
from train.controls import CONTROLS
from train.fusion import FUSIONS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the matrix; `name` is that of its predictions file and, without a control, of its model folder."""

    model: str
    protocol: Protocol
    seed: int
    control: str = ""

    @property
    def row(self) -> str:
        """The table's row that it is in: MODEL, or MODEL+CONTROL."""
        return f"{self.model}+{self.control}" if self.control else self.model

    @property
    def name(self) -> str:
        """MODEL-PROTOCOL-SEED, or MODEL+CONTROL-PROTOCOL-SEED."""
        return f"{self.row}-{self.protocol}-{self.seed}"


def runs_of(config: TrainConfig) -> list[Run]:
    """Every run that trains: the models, then the controls. Raises `UserError` on a name that does not exist."""
    for name in config.models:
        choose("model", name, list(FUSIONS))
    for name in config.controls:
        choose("control", name, [*CONTROLS, EMAP])
    impossible = [name for name in config.controls if name in READ_AGAIN] if config.features else []
    if impossible:
        raise UserError(
            f"the control {impossible[0]} asks an encoder, and features from files come without one",
            f"--control {' or '.join(name for name in (*CONTROLS, EMAP) if name not in READ_AGAIN)}",
        )
    if "second_image" in config.controls and config.second_image_backbone is None:
        raise UserError("the control second_image needs a second image encoder", "--second-image-backbone FOLDER")
    trained = [name for name in config.controls if name != EMAP]
    of_controls = controlled(config) if trained else ()
    for name in of_controls:
        choose("model", name, list(FUSIONS))
        if not is_fusion(name):
            raise UserError(
                f"controls are of models with image and text, and {name} has one of them", "--control-model concat"
            )
    cells: list[tuple[Protocol, int]] = [
        (protocol, seed) for protocol in config.protocols for seed in range(config.n_seeds)
    ]
    models = [Run(model, protocol, seed) for protocol, seed in cells for model in config.models]
    return models + [
        Run(model, protocol, seed, control) for protocol, seed in cells for model in of_controls for control in trained
    ]


def longest_first(runs: list[T], model_of: Callable[[T], str]) -> list[T]:
    """`runs` with those first that read tokens, so that no process is left alone with one of them at the end."""
    return sorted(runs, key=lambda each: not FUSIONS[model_of(each)].uses_tokens)


def emap_runs(config: TrainConfig, protocol: Protocol) -> list[Run]:
    """EMAP of the best fusion of a protocol, by mean macro-F1 on validation over the experiment's seeds."""
    fusions = [name for name in config.models if is_fusion(name)]
    if not fusions:
        raise UserError("EMAP is of the best fusion, and no model with image and text is trained", "--model all")
    best = max(
        fusions, key=lambda name: mean(_validated(config, Run(name, protocol, s)) for s in range(config.n_seeds))
    )
    return [Run(best, protocol, seed, EMAP) for seed in range(config.n_seeds)]


def controlled(config: TrainConfig) -> tuple[str, ...]:
    """The models that controls are of: those named, else attention pooling (concat on given features, which have no
    tokens) where it is trained, else the first model with both modalities."""
    if config.control_models:
        return config.control_models
    fusions = [name for name in config.models if is_fusion(name)]
    usual = "concat" if config.features else "attention_pooling"
    if not fusions:
        raise UserError("controls are of models with image and text, and none is trained", f"--model {usual}")
    return (usual,) if usual in fusions else (fusions[0],)


def is_fusion(model: str) -> bool:
    """Whether a model reads both modalities."""
    return FUSIONS[model].uses_image and FUSIONS[model].uses_text


def predictions_of(config: TrainConfig, this: Run) -> Path:
    """The file that is written last: where it is, the run is finished."""
    return config.out / "predictions" / f"{this.name}.parquet"


def model_folder_of(config: TrainConfig, this: Run) -> Path:
    """Where a run without a control leaves its model."""
    return config.out / "models" / this.name


def record_of(config: TrainConfig, this: Run) -> Path:
    """Where a control leaves the history of its training; its model is of no use and is not kept."""
    return config.out / "controls" / f"{this.name}.json"


def records(config: TrainConfig) -> dict[str, Any]:
    """By name, how each finished run was trained, also of earlier calls, whose folder was not deleted since."""
    finished = {file.stem for file in (config.out / "predictions").glob("*.parquet")}
    files = {file.parent.name: file for file in sorted((config.out / "models").glob("*/config.json"))}
    files |= {file.stem: file for file in sorted((config.out / "controls").glob("*.json"))}
    return {name: read_json(file)["training"] for name, file in files.items() if name in finished}


def _validated(config: TrainConfig, this: Run) -> float:
    path = model_folder_of(config, this) / "config.json"
    if not path.is_file():
        raise UserError(
            f"EMAP needs the model {path.parent}, which was deleted",
            f"delete {predictions_of(config, this)} as well, so that it is trained again",
        )
    return float(read_json(path)["training"]["best"]["validation_macro_f1"])
