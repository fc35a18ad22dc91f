"""The instructions a VLM is given, one Markdown file each; a text's identity is its hash."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One instruction: the user's turn of the chat, beside the image. `sha256` is of the text in UTF-8."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_prompt(name: str) -> Prompt:
    """The bundled prompt NAME, or the text in the file NAME. `doctor` is the one of La Quatra et al., completed.

    The paper prints it up to "… in an objective manner"; the two sentences after that are ours.
    """
    bundled = {path.stem: path for path in Path(__file__).parent.glob("*.md")}
    path = bundled.get(name, Path(name))
    if not path.is_file():
        raise UserError(
            f"unknown prompt '{name}'; choose one of: {', '.join(sorted(bundled))}, or give a text file",
            "vl-dermnet annotate … --prompt doctor",
        )
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt file {path} is not text in UTF-8: {error}") from error
    if not text:
        raise UserError(f"the prompt file {path} is empty")
    return Prompt(name=path.stem, text=text)
