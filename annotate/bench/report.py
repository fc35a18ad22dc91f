"""The figures of a benchmark as a page: a table, and all that is needed to get them again."""

from typing import Any


def as_markdown(result: dict[str, Any], ways: dict[str, str]) -> str:
    """A page of Markdown. `ways` says in words what each was."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    host, settings = result["machine"], result["settings"]
    gpus = ", ".join(host["gpus"]) or "no GPU"
    first = next(iter(result["ways"].values()))
    n_images, n_rounds = int(first["n_images"]), len(first["rounds"])
    lines = [
        "# annotate: images per second",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {gpus}; {versions}.",
        f"{n_images} images, {settings['model']} in {settings['dtype']}, {settings['n_tokens']} output tokens each.",
        "1 round."
        if n_rounds == 1
        else f"{n_rounds} rounds in turns, medians; the ratio is within a round, its smallest and largest behind it.",
        "Start-up is not counted. Memory is that of all processes together, pages that they share counted once.",
        "",
        "| way | images/s | ÷ ready | from – to | wall, s | CPU, s | cores busy | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, row in result["ways"].items():
        ratio, least, most = "", "", ""
        if row["ratio"] is not None:
            ratio, (least, most) = f"{row['ratio']:.3f}", (f"{each:.3f}" for each in row["ratio_range"])
        lines.append(
            f"| {way}: {ways[way]} | {row['images_per_s']:.2f} | {ratio} | {least} – {most} | {row['wall_s']:.1f}"
            f" | {row['cpu_s']:.1f} | {row['cores_busy']:.0%} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
