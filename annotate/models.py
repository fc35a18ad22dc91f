"""Which model, exactly: a Hub id at a commit, or a folder known by the hash of its files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.bundled import BUNDLED
from builders.errors import UserError
from builders.files import sha256_of


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint that can be named again: `location` is what loaders take, a folder or a Hub id.

    `revision` is a commit of the Hub, or `sha256:…` of a folder's files. `architecture` is the checkpoint's own word
    for its format, e.g. `InternVLForConditionalGeneration` or `InternVLChatModel`.
    """

    id: str
    location: str
    revision: str
    architecture: str
    trust_remote_code: bool = False

    @property
    def hub_revision(self) -> str | None:
        """What loaders take as `revision`: a commit, or None for a folder."""
        return None if self.revision.startswith("sha256:") else self.revision


def resolve_model(model: str, revision: str | None, trust_remote_code: bool) -> Model:
    """Find the checkpoint that MODEL means and pin it: bundled name, folder, or Hub id.

    Raises `UserError` where there is none, where its remote code would be run without a pinned revision, or where
    the Hub does not answer and no copy is in the cache.
    """
    folder = BUNDLED.get(model, Path(model))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is not a checkpoint: it holds no config.json")
        name = model if model in BUNDLED else folder.resolve().name
        return Model(name, str(folder), _folder_revision(folder), _architecture(folder), trust_remote_code)
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise UserError(
            f"unknown model '{model}': no such folder, and not a Hub id like OpenGVLab/InternVL3-8B-hf",
            f"one of: {', '.join(BUNDLED)}, a folder with config.json, or OWNER/NAME",
        )
    if trust_remote_code and not _is_commit(revision):
        raise UserError(
            f"--trust-remote-code runs code of {model}: pin the commit that you have read; --revision is {revision}",
            "the same command with --revision COMMIT   (40 hex digits)",
        )
    commit, config = _from_hub(model, revision)
    return Model(model, model, commit, _architecture(config.parent), trust_remote_code)


def _from_hub(model: str, revision: str | None) -> tuple[str, Path]:
    """The commit that `revision` means and the model's config.json at it, from the Hub or else from the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        config = Path(hf_hub_download(model, "config.json", revision=revision))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"the model {model} is not in the cache, and the Hub cannot be reached",
            f"huggingface-cli download {model}   on a machine with network, or --model FOLDER",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"no model '{model}' on the Hub, or it is private or gated", "hf auth login") from error
    except HfHubHTTPError as error:
        raise UserError(f"the Hub refused {model} at revision {revision}: {error}") from error
    return config.parent.name, config  # …/snapshots/<commit>/config.json


def _folder_revision(folder: Path) -> str:
    """`sha256:` + 16 hex digits over the names and bytes of all files that loaders read; README and dot files not."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        if file.suffix != ".md" and not file.name.startswith("."):
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _architecture(folder: Path) -> str:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names: list[str] = config.get("architectures") or [""]
    return names[0]


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
