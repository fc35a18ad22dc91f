"""An engine that answers from a table and fails where told: for tests and for trying the plumbing without a model."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from annotate.engines.records import Answer, EngineConfig, EngineFacts, Feed, Request
from annotate.schemas import Schema
from builders.errors import UserError

DEFAULT = {"text": "A scripted answer about image {key}."}
FOREVER_S = 10**6


class ScriptedEngine:
    """Answers `{key}`-templates from `engine_args["script"]`, a JSON file: prefix of the image's sha256 -> entry.

    An entry is `{"text": …, "finish_reason": …}`, or tells how to fail: `error` (it could not), `kill` (the process
    dies at once, as from SIGKILL), `kill_once` (so, but only the first time: it names a file that is made then),
    `kill_core` (so too, but what dies is a process that the engine started, and no answer comes any more), `exit` (with
    this code), `raise` (an exception; "memory" is a MemoryError), `hang`, `silent` (no answer), `twice` (and one more
    to nobody), `late` (answered after all others). `texts` is a list, one per retry. The entry "" is for all others.
    `engine_args["seconds"]` is slept per image, `start_seconds` before the first.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._seconds = _seconds(config, "seconds")
        self._start_s = _seconds(config, "start_seconds")
        self._script = _read_script(config.engine_args.get("script"))
        self._prompt, self._schema = config.prompt, config.schema
        self._capacity = config.max_in_flight or 1
        self._core: BaseProcess | None = None

    def start(self) -> EngineFacts:
        """Nothing is loaded; a core is started if one is to be killed."""
        time.sleep(self._start_s)
        if any("kill_core" in entry for entry in self._script.values()):
            self._core = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(FOREVER_S,), name="core")
            self._core.start()
        return EngineFacts(
            "scripted",
            f"<image>\n{self._prompt}",
            dtype="none",
            versions={},
            capacity=self._capacity,
            window=self._capacity,
        )

    def describe(self, feed: Feed) -> Iterator[Answer]:
        """Answer one request after the other."""
        late: list[Answer] = []
        while not feed.is_finished:
            request = feed.take(wait=True)
            if request is None:
                yield from late
                late = []
                continue
            time.sleep(self._seconds)
            entry = self._entry(request.key)
            self._kill_core(entry)
            _fail(entry)
            if entry.get("silent"):
                continue
            answer = self._answer(request, entry)
            if entry.get("late"):
                late.append(answer)
                continue
            yield answer
            if entry.get("twice"):
                yield Answer(request.key, text="twice")
                yield Answer("f" * 64, text="of nobody")
        yield from late

    def processes(self) -> list[BaseProcess]:
        """The core, where there is one."""
        return [self._core] if self._core else []

    def close(self) -> None:
        """End the core."""
        if self._core:
            self._core.kill()

    def _kill_core(self, entry: dict[str, Any]) -> None:
        if self._core and "kill_core" in entry and not Path(entry["kill_core"]).exists():
            Path(entry["kill_core"]).touch()
            self._core.kill()
            time.sleep(FOREVER_S)

    def _answer(self, request: Request, entry: dict[str, Any]) -> Answer:
        if "error" in entry:
            return Answer(request.key, task=request.task, error=str(entry["error"]))
        texts: list[str] = entry.get("texts", [str(entry.get("text", ""))])
        text = texts[min(request.seed, len(texts) - 1)].replace("{key}", request.key[:8])
        if request.task == "findings" and self._schema:
            text = str(entry.get("findings", json.dumps(_first_words(self._schema))))
        return Answer(
            request.key,
            text,
            str(entry.get("finish_reason", "stop")),
            n_output_tokens=len(text.split()),
            n_tiles=1,
            task=request.task,
        )

    def _entry(self, key: str) -> dict[str, Any]:
        prefixes = [prefix for prefix in self._script if key.startswith(prefix)]
        return self._script[max(prefixes, key=len)] if prefixes else DEFAULT


def _fail(entry: dict[str, Any]) -> None:
    """Die, hang or raise, as the entry says."""
    if entry.get("kill"):
        _die()
    if "kill_once" in entry and not Path(entry["kill_once"]).exists():
        Path(entry["kill_once"]).touch()
        _die()
    if "exit" in entry:
        os._exit(int(entry["exit"]))
    if entry.get("hang"):
        time.sleep(FOREVER_S)
    if "raise" in entry:
        sys.stderr.write("the script says: raise\n")
        raise MemoryError(entry["raise"]) if entry["raise"] == "memory" else RuntimeError(entry["raise"])


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def _first_words(schema: Schema) -> dict[str, Any]:
    """Findings of the first word of every list: JSON that the schema accepts."""
    return {
        name: [inner["items"]["enum"][0]] if inner["type"] == "array" else inner["enum"][0]
        for name, inner in schema.json_schema["properties"].items()
    }


def _seconds(config: EngineConfig, name: str) -> float:
    value = config.engine_args.get(name, 0.0)
    if not isinstance(value, (int, float)) or value < 0:
        raise UserError(f"--engine-arg {name}={value} is not a number of seconds", f"--engine-arg {name}=0.1")
    return float(value)


def _read_script(path: Any) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        script: Any = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the script {path} of the scripted engine: {error}") from error
    if not isinstance(script, dict) or not all(isinstance(entry, dict) for entry in script.values()):
        raise UserError(f"the script {path} of the scripted engine is no object of objects: sha256 -> what to do")
    return script
