"""Checkpoints that come with the package, by the name that `--model` and `--image-backbone` take."""

from pathlib import Path

BUNDLED: dict[str, Path] = {
    "tiny-internvl": Path(__file__).resolve().parents[1] / "annotate" / "tiny_internvl" / "weights",
}
