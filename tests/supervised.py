"""What the tests of supervised runs share: photographs, a script for the engine, its processes, the rows."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from annotate.asks import Ask
from annotate.config import AnnotateConfig
from annotate.progress import Progress
from builders.index import index_images
from builders.run_folder import part_files, read_run

RUN = (
    "import sys; from annotate.config import AnnotateConfig; from annotate.job import run\n"
    "run(AnnotateConfig.model_validate_json(sys.argv[1]))"
)
TEXT = "A scripted answer about image {key}."
N_PHOTOS = 24
HUNG = "the engine died of it twice: no answer for 1 s (--timeout)"
# What the script says of an image, and the reason that its row then gives; "" where it is answered all the same.
WAYS = {
    "exception": ({"raise": "boom"}, "the engine died of it twice: RuntimeError: boom"),
    "exception in odd words": ({"raise": "\ud800"}, "the engine died of it twice: RuntimeError: \\ud800"),
    "out of memory": ({"raise": "memory"}, "the engine died of it twice: MemoryError: memory (out of memory)"),
    "SIGKILL": ({"kill": True}, "the engine died of it twice: killed by SIGKILL"),
    "exit code": ({"exit": 7}, "the engine died of it twice: ended with exit code 7"),
    "hang": ({"hang": True}, HUNG),
    "no answer": ({"silent": True}, HUNG),
    "error": ({"error": "out of luck"}, "out of luck"),
    "odd text": ({"text": "\ud800"}, "the engine's text is not Unicode: surrogates not allowed"),
    "empty text": ({"text": ""}, ""),
    "two answers": ({"text": TEXT, "twice": True}, ""),
    "wrong order": ({"text": TEXT, "late": True}, ""),
}
DEADLY = [way for way, (_, reason) in WAYS.items() if reason.startswith("the engine died")]


class Told(Progress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(is_silent=True)
        self.messages = []

    def say(self, message):
        self.messages.append(message)


def make_photos(root, n_photos):
    for seed in range(n_photos):
        path = root / "train" / ("papule" if seed % 2 else "plaque") / f"{seed:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def config(photos, out, script=None, **changes):
    engine_args = dict(changes.pop("engine_args", {}))
    if script is not None:
        file = out.parent / "script.json"
        file.write_text(json.dumps(script))
        engine_args["script"] = str(file)
    settings = {"images": str(photos), "out": out, "engine": "scripted", "engine_args": engine_args, "n_workers": 0}
    return AnnotateConfig(**{**settings, **changes})


def command(photos, out, *options):
    return [
        sys.executable,
        "-m",
        "annotate",
        "annotate",
        str(photos),
        "--out",
        str(out),
        "--engine",
        "scripted",
        *options,
    ]


def by_key(out):
    return {row.image_sha256: row for row in read_run(out).descriptions.values()}


def calm_text(key):
    return TEXT.replace("{key}", key[:8])


def rows_on_disk(out):
    return [row for part in part_files(out) for row in pq.read_table(part).to_pylist()]


def children_of(pid):
    """Processes whose parent is `pid`, by https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def engines_of(pid):
    """Its children that run an engine."""
    found = []
    for child in children_of(pid):
        with suppress(OSError):
            if b"engine_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def decoders_of(pid):
    """The processes that decode for its engines."""
    found = []
    for child in (each for engine in engines_of(pid) for each in children_of(engine)):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def family_of(pid):
    """Its children, and theirs."""
    children = children_of(pid)
    return children + [each for child in children for each in family_of(child)]


def wait_until(is_true, what):
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)


def wait_for_end(pids):
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), f"the end of {pids}")


def check_rows(out, keys, ways_of):
    """Every image has one row; those of `ways_of` (key -> way) as `WAYS` says, all others as in a calm run."""
    rows = rows_on_disk(out)
    assert len(rows) == len({row["image_id"] for row in rows}) == len(keys)
    found = by_key(out)
    for key in keys:
        entry, reason = WAYS[ways_of[key]] if key in ways_of else ({}, "")
        text = "" if reason else entry.get("text", TEXT).replace("{key}", key[:8])
        status = "failed" if reason else "ok"
        assert (found[key].status, found[key].reason, found[key].description) == (status, reason, text)
        assert ("empty" in found[key].flags) == (status == "ok" and not text)


def asks_about(photos):
    return [Ask(row.image_sha256, row.path) for row in index_images(photos, 0)]
