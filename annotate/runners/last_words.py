"""What an engine's own processes said before they died: the cause, found in what they printed."""

import re

from annotate.engines.memory import MORE_MEMORY

# vLLM's engine core and its workers, each line: (EngineCore pid=7) ERROR 11-26 17:13:43 [core.py:1510] ValueError: …
_SAID_BY_A_CHILD = re.compile(
    r"^\(\w+(?: \w+)* pid=\d+\).*?\] ((?:\w+\.)*\w*(?:Error|Exception)): *(\S.*)$", re.MULTILINE
)
_POINTS_ELSEWHERE = ("Engine core initialization failed", "EngineCore encountered an issue")
_OF_MEMORY = re.compile(r"memory|KV cache|OutOfMemory", re.IGNORECASE)


def cause_of(kind: str, message: str, printed: str) -> str:
    """`KIND: MESSAGE` of an exception; where it only points at another process, what that one printed first."""
    if any(words in message for words in _POINTS_ELSEWHERE):
        first = _SAID_BY_A_CHILD.search(printed)
        if first is not None:
            kind, message = first[1].rpartition(".")[2], first[2]
    return f"{kind}: {message}".strip()


def fix_of(reason: str, logs: str) -> str:
    """What to type next where an engine does not start for this reason."""
    return f"{MORE_MEMORY}; more is in {logs}" if _OF_MEMORY.search(reason) else f"read {logs}"
