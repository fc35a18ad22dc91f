"""Everything a training run can be told, with the defaults; written beside every experiment."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from builders.errors import UserError

Protocol = Literal["official", "clean"]
PROTOCOLS: dict[str, tuple[Protocol, ...]] = {
    "official": ("official",),
    "clean": ("clean",),
    "both": ("official", "clean"),
}
EMAP = "emap"  # a control that is computed from a trained model
READ_AGAIN = ("constant_text", "masked_text", "second_image")  # controls for which an encoder reads something else
PAPER_MODELS = ("text_only", "image_only", "concat", "gating", "dual_film", "attention_pooling")


class TrainConfig(BaseModel):
    """What `train.experiment.run` does; a default for everything but the two paths.

    `dataset` is a dataset folder or a Hub repository's id; `images` a folder with its photographs, where the dataset
    does not hold them. The default backbones are the paper's most likely ones (its slides do not name checkpoints).
    `models` are names of `train.fusion.FUSIONS`; `all` (or none) stands for the paper's six rows, `every` for each one.
    With `is_frozen`, backbones only extract features, once, and `image_lr` and `text_lr` are not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    out: Path

    set_name: str | None = None
    revision: str | None = None
    images: Path | None = None

    models: tuple[str, ...] = PAPER_MODELS
    n_seeds: Annotated[int, Field(ge=1)] = 5
    protocol: Literal["official", "clean", "both"] = "both"

    image_backbone: str = "google/vit-base-patch16-224-in21k"
    image_revision: str | None = None
    text_backbone: str = "google-bert/bert-base-uncased"
    text_revision: str | None = None
    max_text_tokens: Annotated[int, Field(ge=1)] = 256

    is_frozen: bool = False
    epochs: Annotated[int, Field(ge=1)] | None = None  # None: 60 with frozen backbones, else 10
    batch_size: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 1e-3  # of the head
    image_lr: Annotated[float, Field(gt=0)] = 5e-5
    text_lr: Annotated[float, Field(gt=0)] = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    is_augmented: bool = True  # flips and shifts of the pixels; no effect on frozen backbones
    device: str = "auto"
    n_jobs: Annotated[int, Field(ge=1)] = 1  # runs at once, each in a process; with frozen backbones alone
    is_bf16: bool = False  # autocast

    # The loop. `batch_size` is what one step of the optimizer sees, in how many parts or processes it may be computed.
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts of a batch, one after the other, to save memory
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 300.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the averaged weights; 0: no averaging
    imbalance: str = "none"  # a name of train.imbalance.IMBALANCE
    modality_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    patience: Annotated[int, Field(ge=1)] | None = None  # epochs without a better one, then stop
    is_compiled: bool = False
    image_layers: Annotated[int, Field(ge=0)] | None = None  # train the last blocks only; None: the whole backbone
    text_layers: Annotated[int, Field(ge=0)] | None = None
    caches_frozen_blocks: bool = False  # the image's, before its last blocks; then a mirror image is all augmentation
    lora: Annotated[int, Field(ge=1)] | None = None  # rank of the adapters
    head_epochs: Annotated[int, Field(ge=0)] = 0  # before the others: heads alone (train/heads_first.py)

    # A recipe (train/recipes.py) that the settings come from, and those of it that were given otherwise.
    recipe: str | None = None
    recipe_overrides: tuple[str, ...] = ()

    # Test a model that was trained again, on train and validation together and to the end of the schedule.
    is_refit: bool = False

    # Heads, and features from files in place of backbones (train/given.py).
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = ()  # widths of hidden layers; none: linear, as the paper
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # behind each hidden layer
    features: tuple[Path, ...] = ()  # if any, `dataset` is a labelled list
    image_features: tuple[str, ...] = ()  # arrays in them, side by side: what models call the image
    text_features: tuple[str, ...] = ()  # and what they call the text
    image_features_of: str | None = None  # what the first are features of, for names of rows and the notes of a table
    text_features_of: str | None = None

    # Controls (train/controls): of which models, and the encoder that `second_image` puts in place of the text's.
    second_image_backbone: str | None = None
    second_image_revision: str | None = None
    control_models: tuple[str, ...] = ()  # none: one of `models` (train/matrix.py)
    controls: tuple[str, ...] = ()

    @field_validator("models")
    @classmethod
    def _spell_out(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """`all` and `every` as the names that they stand for, each name once."""
        spelled: list[str] = []
        for name in names or ("all",):
            if name == "every":
                from train.fusion import FUSIONS  # heavy: a mistake in another option is told before

                spelled += FUSIONS
            else:
                spelled += PAPER_MODELS if name == "all" else [name]
        return tuple(dict.fromkeys(spelled))

    @field_validator("controls")
    @classmethod
    def _spell_out_controls(cls, names: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        """`all` as every control that is possible: `second_image` where its encoder is named, and with features from
        files those that need no encoder; each name once."""
        spelled: list[str] = []
        for name in names:
            if name == "all":
                from train.controls import CONTROLS

                has_second = others.data.get("second_image_backbone") is not None
                left_out = READ_AGAIN if others.data.get("features") else () if has_second else ("second_image",)
                spelled += [each for each in (*CONTROLS, EMAP) if each not in left_out]
            else:
                spelled.append(name)
        return tuple(dict.fromkeys(spelled))

    @model_validator(mode="after")
    def _frozen_means_frozen(self) -> Self:
        options = {
            "--image-layers": self.image_layers,
            "--text-layers": self.text_layers,
            "--lora": self.lora,
            "--compile": self.is_compiled or None,
            "--head-epochs": self.head_epochs or None,
        }
        given = [option for option, value in options.items() if value is not None]
        if self.is_frozen and given:
            raise UserError(f"--frozen trains no backbone, and {given[0]} says how to train one", "leave one out")
        if not self.is_frozen and self.n_jobs > 1:
            raise UserError(
                f"--jobs {self.n_jobs} trains several heads at once, and without --frozen a run takes the whole device",
                "add --frozen, or leave --jobs out",
            )
        return self

    @model_validator(mode="after")
    def _cached_blocks_are_frozen(self) -> Self:
        if not self.caches_frozen_blocks:
            return self
        option, out = "--cache-frozen-blocks", "leave --cache-frozen-blocks out"
        if self.is_frozen:
            raise UserError(f"{option} is for training the last blocks, and with --frozen none is trained", out)
        if self.image_layers is None:
            raise UserError(f"{option} needs to know which blocks are frozen: all but the last N", "--image-layers N")
        if self.image_layers == 0:
            raise UserError(
                f"{option} keeps what enters the first trained block, and --image-layers 0 trains none",
                f"--image-layers 1, or {out}",
            )
        if self.is_compiled:
            raise UserError(f"{option} begins an encoder at a block, which --compile cannot do", "leave one out")
        if "second_image" in self.controls:
            raise UserError(
                f"the control second_image trains another encoder on augmented pixels, and {option} augments none",
                f"leave --second-image-backbone out, or {out}",
            )
        return self

    @property
    def micro_batch_size(self) -> int:
        """How many rows are computed at once."""
        return math.ceil(self.batch_size / self.accumulate)

    @property
    def n_epochs(self) -> int:
        """How often the training rows are seen."""
        return self.epochs or (60 if self.is_frozen else 10)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Which split columns are used, in the order of the table."""
        return PROTOCOLS[self.protocol]


def checked_config(options: dict[str, Any], command: str) -> TrainConfig:
    """The settings that `vl-dermnet COMMAND` was given. Raises `UserError` with the first one that cannot be."""
    try:
        return TrainConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{name} is {first['input']!r}: {first['msg']}", f"vl-dermnet {command} --help") from error
