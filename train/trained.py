"""Which weights a fit changes: heads, whole backbones, their last blocks, or low-rank adapters in them."""

from typing import Any

from torch import Tensor, nn

from builders.errors import UserError
from train.backbones import ImageBackbone, TextBackbone
from train.config import TrainConfig
from train.given_tower import GivenFeatures
from train.model import FusionModel

_LORA_ALPHA = 2  # times the rank, the usual choice: adapters of all ranks learn at like speed


def choose_trained(model: FusionModel, config: TrainConfig) -> None:
    """Set `requires_grad`, and put in adapters, as `config` says; raises `UserError` on more blocks than there are."""
    model.requires_grad_(False)
    model.fusion.requires_grad_(True)
    if config.is_frozen:
        return
    for backbone, n_layers, option in (
        (model.image, config.image_layers, "--image-layers"),
        (model.text, config.text_layers, "--text-layers"),
    ):
        if backbone is None or isinstance(backbone, GivenFeatures):
            continue
        if config.lora is not None:
            add_adapters(backbone, config.lora, n_layers, option)
        elif n_layers is None:
            backbone.model.requires_grad_(True)
        elif n_layers:
            first = next(last_blocks(backbone, n_layers, option)[0][1].parameters())
            is_above = False
            for parameter in backbone.model.parameters():  # in the order of registration: norms after the blocks last
                is_above = is_above or parameter is first
                parameter.requires_grad_(is_above)


def last_blocks(backbone: ImageBackbone | TextBackbone, n_layers: int | None, option: str) -> list[tuple[str, Any]]:
    """The names and modules of an encoder's last `n_layers` blocks (of a convolutional one: stages), or of all."""
    lists = [(name, module) for name, module in backbone.model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(backbone.model).__name__} has no list of blocks", f"leave {option} out")
    name, blocks = max(lists, key=lambda each: (-each[0].count("."), len(each[1])))
    if n_layers is not None and n_layers > len(blocks):
        raise UserError(
            f"{option} is {n_layers}, and {type(backbone.model).__name__} has {len(blocks)} blocks",
            f"{option} {len(blocks)}, or leave it out to train the embeddings too",
        )
    chosen = range(0 if n_layers is None else len(blocks) - n_layers, len(blocks))
    return [(f"{name}.{number}", blocks[number]) for number in chosen]


def add_adapters(backbone: ImageBackbone | TextBackbone, rank: int, n_layers: int | None, option: str) -> None:
    """Low-rank adapters on every linear layer of the chosen blocks; the rest of the backbone stays as it is.

    LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685. They start at zero: the model starts as without them.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(
            "--lora needs a package that is not installed: peft", "pip install 'vl-dermnet[train]'"
        ) from error

    if n_layers == 0:
        return
    names = [
        f"{block_name}.{name}"
        for block_name, block in last_blocks(backbone, n_layers, option)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    adapters = LoraConfig(r=rank, lora_alpha=_LORA_ALPHA * rank, lora_dropout=0.0, target_modules=names)
    backbone.model = get_peft_model(backbone.model, adapters)


def merge_adapters(model: FusionModel) -> None:
    """Add the adapters to the weights that they adapt, so that the backbones are plain models again."""
    for backbone in (model.image, model.text):
        if backbone is None or isinstance(backbone, GivenFeatures):
            continue
        merge: Any = getattr(backbone.model, "merge_and_unload", None)
        if merge is not None:
            backbone.model = merge()


def compile_trained(model: FusionModel) -> None:
    """Compile the backbones that are trained, whose steps cost nearly all; names of weights stay the same."""
    for backbone in (model.image, model.text):
        if backbone is not None and any(p.requires_grad for p in backbone.parameters()):
            backbone.compile()


def set_training(model: nn.Module, inherited: bool = True) -> None:
    """Training mode where something is trained; frozen blocks stay as they predict: no dropout, no statistics."""
    own = list(model.parameters())
    model.training = any(p.requires_grad for p in own) if own else inherited
    for child in model.children():
        set_training(child, model.training)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a fit changes, by name: trained parameters, and the buffers that are saved with a model."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: p for name, p in model.named_parameters() if p.requires_grad} | buffers
