"""An engine that answers from a table and fails where told: for tests and for trying the plumbing without a model."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotate.engines.records import Answer, EngineConfig, EngineFacts, Feed
from builders.errors import UserError

DEFAULT = {"text": "A scripted answer about image {key}."}


class ScriptedEngine:
    """Answers `{key}`-templates from `engine_args["script"]`, a JSON file: prefix of the image's sha256 -> entry.

    An entry is `{"text": …, "finish_reason": …}`, `{"error": …}` (the engine could not), or `{"kill": true}` (the
    process dies at once, as from SIGKILL). The entry "" is for all others. `engine_args["seconds"]` is slept per image.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._seconds = float(config.engine_args.get("seconds", 0.0))
        self._script = _read_script(config.engine_args.get("script"))
        self._prompt = config.prompt

    def start(self) -> EngineFacts:
        """Nothing is loaded."""
        return EngineFacts("scripted", f"<image>\n{self._prompt}", dtype="none", versions={})

    def describe(self, feed: Feed) -> Iterator[Answer]:
        """Answer one request after the other."""
        while not feed.is_finished:
            request = feed.take(wait=True)
            if request is None:
                continue
            time.sleep(self._seconds)
            entry = self._entry(request.key)
            if entry.get("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if "error" in entry:
                yield Answer(request.key, error=str(entry["error"]))
                continue
            text = str(entry.get("text", "")).replace("{key}", request.key[:8])
            yield Answer(
                request.key, text, str(entry.get("finish_reason", "stop")), n_output_tokens=len(text.split()), n_tiles=1
            )

    def close(self) -> None:
        """Nothing to give back."""

    def _entry(self, key: str) -> dict[str, Any]:
        prefixes = [prefix for prefix in self._script if key.startswith(prefix)]
        return self._script[max(prefixes, key=len)] if prefixes else DEFAULT


def _read_script(path: Any) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        return json.loads(Path(str(path)).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read the script {path} of the scripted engine: {error}") from error
