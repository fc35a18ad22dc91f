"""What a second VLM's texts cost to publish: `python -m tests.measure_second_set --out results/second-set`.

The stock client and its Xet wheel send a dataset with its photographs to the tests' own Hub over HTTP, then the same
dataset with a second description set; counted is what the chunk store did not have.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from annotate.provenance import machine, utc_now
from builders.bench.scripted_run import N_WORDS, write_scripted_run
from builders.build import BuildConfig, build
from builders.files import write_atomic, write_json
from builders.index import index_images, write_index
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from builders.sample import write_sample
from dataset_card.card import write_card
from tests.hub_server import HubServer
from tests.hub_server.client import connect

LIBRARIES = ("huggingface_hub", "hf-xet", "pyarrow")


def measure(images: Path, scratch: Path) -> dict[str, int]:
    """Bytes of the photographs and of each publication, and what of the latter was new to the store."""
    write_index(scratch / "index.parquet", index_images(str(images)))
    for name in ("first", "second"):
        write_scripted_run(scratch / name, scratch / "index.parquet", name)
    with HubServer(scratch / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        connect(patch, hub, scratch / "home")
        found: dict[str, int] = {}
        for step, names in (("first", ("first",)), ("second", ("first", "second"))):
            folder = scratch / f"dataset-{step}"
            runs = tuple(scratch / name for name in names)
            build(BuildConfig(images=images, runs=runs, out=folder, with_images=True), finish=write_card)
            before = hub.storage.xet_bytes
            publish(PublishConfig(folder=folder, repo_id="me/set", rights_holder="Example Hospital"))
            in_git = sum(entry.size for entry in hub.dataset("me/set").head.tree.values() if entry.sha256 is None)
            found[f"{step}_new_bytes"] = hub.storage.xet_bytes - before + in_git  # as if each of these were new
            found[f"{step}_n_bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return found


def main(
    out: Annotated[Path, typer.Option(help="Where the figures go: OUT.json and OUT.md.")],
    images: Annotated[int, typer.Option(min=10, help="How many sample photographs.")] = 5000,
) -> None:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_sample(scratch / "photographs", n_images=images, seed=0)
        found = measure(scratch / "photographs", scratch)
    share = found["second_new_bytes"] / found["second_n_bytes"]
    command = f"python -m tests.measure_second_set --images {images} --out {out}"
    result: dict[str, Any] = {
        "command": command,
        "at": utc_now(),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "n_images": images,
        **found,
        "share": round(share, 5),
    }
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        "# publish: what a second description set costs",
        "",
        f"`{command}`",
        "",
        f"{result['at']}; {versions}.",
        "The stock clients and the Hub of the tests, whose chunk store they ask over HTTP on loopback;",
        f"{images:,} sample photographs in the dataset, texts of {N_WORDS} words.",
        "",
        "| published | dataset, MB | new to the store or in git, MB | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for step, words in (("first", "one description set"), ("second", "the same and a second set")):
        new, whole = found[f"{step}_new_bytes"] / 1e6, found[f"{step}_n_bytes"] / 1e6
        lines.append(f"| {words} | {whole:.1f} | {new:.1f} | {new / whole:.2%} |")
    lines += ["", f"Wanted: at most 2 %; {'met' if share <= 0.02 else 'not met'}."]
    write_json(out.with_suffix(".json"), result)
    write_atomic(out.with_suffix(".md"), lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
