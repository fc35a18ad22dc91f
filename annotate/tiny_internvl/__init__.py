"""The bundled tiny InternVL: a toy that makes the whole path testable on a CPU, and no medical model."""

from pathlib import Path

TINY_INTERNVL = Path(__file__).resolve().parent / "weights"
