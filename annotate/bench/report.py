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
    ours = result["ways"].get("ours")
    if ours and int(ours["n_images"]) != n_images:
        n_ours = int(ours["n_images"])
        lines += ["", f"ours asks for {n_ours} of them: bytes that are there twice are described once."]
    return "\n".join([*lines, *_why(result["ways"], host["n_cores"])]) + "\n"


# What is done before a way's clock starts, or left undone, and so is not in its seconds.
_SPARED = {
    "ready": "it begins with every image decoded in memory, and writes nothing",
    "whole_list": "it begins with every image decoded in memory, which grows with the list, and writes nothing",
    "loop_of_16": "it hashes no file, checks no answer, and writes nothing",
    "ray_data": "its tasks decode ahead while its engine starts, before the clock, and it writes nothing",
}


def _why(ways: dict[str, Any], n_cores: int) -> list[str]:
    """Where the seconds of ours go that others do not spend; nothing where there is nothing to compare with."""
    ours, ready = ways.get("ours"), ways.get("ready")
    if not ours or not ready:
        return []
    own_s = ours["cpu_s"] - ready["cpu_s"]
    lines = [
        "",
        f"Beside the engine fed from memory, ours takes {ours['wall_s'] - ready['wall_s']:+.1f} s; its own work"
        f" (decode, hash, checks, parts) is {own_s:+.1f} s of CPU, on {n_cores} cores {own_s / n_cores:+.1f} s. Its"
        f" wall is {ours['wall_s'] / (ours['cpu_s'] / n_cores):.2f} of all CPU seconds ÷ cores.",
    ]
    whole_list = ways.get("whole_list")
    if whole_list:
        lines.append(
            f"Its peak memory is {ours['peak_mb'] - whole_list['peak_mb']:+.0f} MB beside the whole list: it has"
            " processes of its own for decoding and for the engine, which do not grow with the list, as its images do."
        )
    faster = {way: row for way, row in ways.items() if row["ratio"] is not None and row["ratio"] > ours["ratio"]}
    lines += [""] if faster else []
    for way, row in faster.items():
        is_noise = way != "ready" and min(row["ratio_range"]) <= max(ours["ratio_range"]) and len(ours["rounds"]) > 1
        told = ", within what the rounds differ by" if is_noise else ""
        lines.append(f"- Faster than ours here{told}, {way}: {_SPARED.get(way, 'it writes nothing')}.")
    return lines
