"""The figures of a benchmark as a page: a table, and all that is needed to get them again."""

from typing import Any


def as_markdown(result: dict[str, Any], ways: dict[str, str]) -> str:
    """A page of Markdown. `ways` says in words what each was."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    host, settings = result["machine"], result["settings"]
    gpus = ", ".join(host["gpus"]) or "no GPU"
    n_images = next(iter(result["ways"].values()))["n_images"]
    lines = [
        "# annotate: images per second",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {gpus}; {versions}.",
        f"{n_images} images, {settings['model']} in {settings['dtype']}, {settings['n_tokens']} output tokens each.",
        "Start-up is not counted. Memory is that of all processes together, pages that they share counted once.",
        "",
        "| way | images/s | ÷ ready | wall, s | CPU, s | cores busy | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, row in result["ways"].items():
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        lines.append(
            f"| {way}: {ways[way]} | {row['images_per_s']:.2f} | {ratio} | {row['wall_s']:.1f} | {row['cpu_s']:.1f}"
            f" | {row['cores_busy']:.0%} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
