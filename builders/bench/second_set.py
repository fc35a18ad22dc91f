"""What a second VLM's texts cost to publish: a dataset goes into a chunk store of Xet, then the same with a second set.

The store is a folder, cut into chunks and looked up by the wheel that `huggingface_hub` uploads with. Run as a program
of its own, `python -m builders.bench.second_set STORE FIRST SECOND`, because the wheel reads its cache from HF_HOME.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.bench.measured import run_measured
from builders.bench.scripted_run import write_scripted_run
from builders.files import sha256_of

WANTED = 0.02


def measure_second_set(
    program: tuple[str, ...], photographs: Path, index: Path, scratch: Path, say: Callable[[str], object]
) -> dict[str, Any]:
    """Bytes of both datasets and what is new in each, to the store or, of what is small text, to git."""
    datasets: list[Path] = []
    runs: list[str] = []
    for name in ("first", "second"):
        say(f"dataset for the chunk store: {name}")
        write_scripted_run(scratch / name, index, name)
        runs += ["--run", str(scratch / name)]
        datasets.append(scratch / f"dataset-{name}")
        run_measured((*program, "build", str(photographs), *runs, "--out", str(datasets[-1]), "--with-images"))
    say("both into the chunk store")
    words = [sys.executable, "-m", "builders.bench.second_set", str(scratch / "store"), *map(str, datasets)]
    environment = os.environ | {"HF_HOME": str(scratch / "home"), "HF_XET_CACHE": str(scratch / "home" / "xet")}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    first, second = json.loads(done.stdout)
    return {"first": first, "second": second, "share": second["new_bytes"] / second["n_bytes"]}


def put_in_store(store: Path, datasets: list[Path]) -> list[dict[str, int]]:
    """Put datasets into a store one after another: of each its bytes, and those that were not there before.

    Parquet goes through Xet, its chunks counted before compression; any other file that is new or has changed counts
    as a whole.
    """
    xet: Any = importlib.import_module("hf_xet")
    known: set[str] = set()
    found: list[dict[str, int]] = []
    for dataset in datasets:
        files = {path: sha256_of(path) for path in sorted(dataset.rglob("*")) if path.is_file()}
        commit = xet.XetSession().new_upload_commit(endpoint=f"local://{store}")
        for path in files:
            if path.suffix == ".parquet":
                commit.start_upload_file(str(path))
        sent = commit.wait_to_finish().dedup_metrics
        others = [path for path, sha256 in files.items() if path.suffix != ".parquet" and sha256 not in known]
        found.append(
            {
                "n_bytes": sum(path.stat().st_size for path in files),
                "new_bytes": sent.new_bytes + sent.shard_bytes_uploaded + sum(path.stat().st_size for path in others),
            }
        )
        known |= set(files.values())
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(put_in_store(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])))
