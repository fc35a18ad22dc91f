"""Which model, exactly: a Hub id at a commit, or a folder known by the hash of its files."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from builders.bundled import BUNDLED
from builders.errors import UserError
from builders.files import read_json, sha256_of

# Where a checkpoint may name classes of its own code, in `auto_map`; the first is in every checkpoint.
CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


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

    Raises `UserError` where there is none, where its remote code would be run without a pinned revision or is another
    repository's, or where the Hub does not answer and no copy is in the cache.
    """
    folder = BUNDLED.get(model, Path(model))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is not a checkpoint: it holds no config.json")
        name = model if model in BUNDLED else folder.resolve().name
        config = _read_config(folder / "config.json")
        if trust_remote_code:
            _refuse_code_of_others(str(folder), [folder / each for each in CONFIGS if (folder / each).is_file()])
        return Model(name, str(folder), _folder_revision(folder), _architecture(config), trust_remote_code)
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise _unknown(model)
    if trust_remote_code and not _is_commit(revision):
        raise UserError(
            f"--trust-remote-code runs code of {model}: pin the commit that you have read; --revision is {revision}",
            "the same command with --revision COMMIT   (40 hex digits)",
        )
    file = _from_hub(model, "config.json", revision)
    commit = file.parent.name  # …/snapshots/<commit>/config.json
    if trust_remote_code:
        others = [_from_hub_if_there(model, each, commit) for each in CONFIGS[1:]]
        _refuse_code_of_others(model, [file, *(other for other in others if other)])
    return Model(model, model, commit, _architecture(_read_config(file)), trust_remote_code)


def _unknown(model: str) -> UserError:
    return UserError(
        f"unknown model '{model}': no such folder, and not a Hub id like OpenGVLab/InternVL3-8B-hf",
        f"one of: {', '.join(BUNDLED)}, a folder with config.json, or OWNER/NAME",
    )


def _from_hub(model: str, name: str, revision: str | None) -> Path:
    """The model's small file NAME at a branch, tag or commit, from the Hub or else from the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except HFValidationError as error:
        raise _unknown(model) from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"the model {model} is not in the cache, and the Hub cannot be reached",
            f"hf download {model}   on a machine with network, or --model FOLDER",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"no model '{model}' on the Hub, or it is private or gated", "hf auth login") from error
    except HfHubHTTPError as error:
        raise UserError(f"the Hub refused {model} at revision {revision}: {error}") from error


def _from_hub_if_there(model: str, name: str, commit: str) -> Path | None:
    """The same; None where the model has no such file, or where neither Hub nor cache can give it to a loader."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(model, name, revision=commit))
    except EntryNotFoundError:  # LocalEntryNotFoundError, of the cache, is one
        return None
    except HfHubHTTPError as error:
        raise UserError(f"the Hub refused {name} of {model} at {commit}: {error}") from error


def _read_config(file: Path) -> dict[str, Any]:
    config: Any = read_json(file)
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged: it holds no JSON object")
    return config


def _refuse_code_of_others(model: str, configs: list[Path]) -> None:
    """Raise `UserError` where an `auto_map` names a class as OWNER/NAME--module.Class of another repository.

    transformers takes that one's newest code, whatever `--revision` says. It writes such names itself, into the folder
    of a fine-tuned model. Source: `get_class_from_dynamic_module`,
    https://github.com/huggingface/transformers/blob/main/src/transformers/dynamic_module_utils.py
    """
    for config in configs:
        for name in _code_names(_read_config(config)):
            repository, is_elsewhere, place = name.rpartition("--")
            if is_elsewhere and repository != model:
                raise UserError(
                    f"{model} takes code from another repository, at no pinned commit: {config.name} names {name}",
                    f"read the code of {repository}, copy its .py files into a folder with the model, and let its "
                    f"{config.name} say {place}",
                )


def _code_names(value: Any, is_named: bool = False) -> list[str]:
    """Everything that the `auto_map`s in a config name, in whatever lists and dicts they hold it, as loaders do."""
    if isinstance(value, str):
        return [value] if is_named else []
    if isinstance(value, dict):
        return [name for key, part in value.items() for name in _code_names(part, is_named or key == "auto_map")]
    if isinstance(value, list):
        return [name for part in value for name in _code_names(part, is_named)]
    return []


def _folder_revision(folder: Path) -> str:
    """`sha256:` + 16 hex digits over the names and bytes of all files that loaders read; README and dot files not."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        if file.suffix != ".md" and not file.name.startswith("."):
            found = file.stat()
            digest.update(f"{file.name} {_sha256_once(file, found.st_size, found.st_mtime_ns)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


@cache
def _sha256_once(file: Path, size: int, mtime_ns: int) -> str:
    """Of a file that is as large and as old as before, what it was: weights take seconds, and `predict` asks twice."""
    return sha256_of(file)


def _architecture(config: dict[str, Any]) -> str:
    names: Any = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
