"""The figures of `bench annotate --gpu` as a page of Markdown."""

from typing import Any

DERMNET = 15_557 + 4_002  # photographs: train and test
WANTED = 0.97  # of the engine fed from memory
COLUMNS = (
    "way",
    "images/s",
    "÷ ready",
    "tokens/s",
    "GPU busy",
    "CPU busy",
    "start, s",
    "driver, MB",
    "all, MB",
    "GPU, MB",
)


def as_markdown(result: dict[str, Any], ways: dict[str, str]) -> str:
    """A page: a table per model and tiles, then the settings against the default; `ways` in words."""
    host, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = list(result["cases"].values())
    lines = [
        "# annotate: images per second at full size",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {', '.join(host['gpus']) or 'no GPU'}; "
        f"{versions}.",
        f"{settings['n_images']} photographs ({settings['photographs']}), {settings['n_tokens']} output tokens each, "
        f"{settings['dtype']}. internvl3-… is the published shape with made-up weights, which change no speed.",
        "Start-up is not counted in images/s and stands beside it. CPU is of all cores; memory is that of the machine,"
        " of the first process alone and with all others, and of the GPU.",
    ]
    titles = dict.fromkeys(row["title"] for row in rows if not row["setting"])
    for title in titles:
        lines += _matrix(title, [row for row in rows if row["title"] == title], ways)
    single = [row for row in rows if row["setting"]]
    if single:
        lines += _settings(single, rows)
    failed = [row for row in rows if "failed" in row]
    if failed:
        lines += ["", "## Not measured", ""]
        lines += [f"- {row['title']}, {row['way']}: {row['failed'].splitlines()[0]}" for row in failed]
    return "\n".join(lines) + "\n"


def _matrix(title: str, rows: list[dict[str, Any]], ways: dict[str, str]) -> list[str]:
    measured = {row["way"]: row for row in rows if "failed" not in row}
    if not measured:
        return []
    lines = ["", f"## {title}", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (len(COLUMNS) - 1)}"]
    base = measured.get("ready")
    for way, row in measured.items():
        ratio = f"{row['images_per_s'] / base['images_per_s']:.3f}" if base else ""
        lines.append(
            f"| {way}: {ways[way]} | {row['images_per_s']:.2f} | {ratio} | {row['tokens_per_s']:,.0f}"
            f" | {_share(row.get('gpu_busy'))} | {row['cores_busy']:.0%} | {row['start_s']:.0f}"
            f" | {row['driver_peak_mb']:,.0f} | {row['peak_mb']:,.0f} | {_number(row.get('gpu_peak_mb'))} |"
        )
    ours = measured.get("ours")
    if ours:
        hours = DERMNET / ours["images_per_s"] / 3600
        lines += ["", f"All of DermNet ({DERMNET:,} photographs) by `annotate`: {hours:.2f} hours of this machine."]
    if ours and base:
        ratio = ours["images_per_s"] / base["images_per_s"]
        faster = [way for way, row in measured.items() if row["images_per_s"] > ours["images_per_s"] and way != "ready"]
        lines += [
            f"Wanted: ours at {WANTED} of ready ({'met' if ratio >= WANTED else f'not met: {ratio:.3f}'}) and ahead of"
            f" all others ({'met' if not faster else 'not met: ' + ', '.join(faster)})."
        ]
    return lines


def _settings(single: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Each setting ÷ the default, and the one that won."""
    first = single[0]
    default = next(
        (
            row
            for row in rows
            if not row["setting"]
            and (row["model"], row["tiles"], row["way"]) == (first["model"], first["tiles"], "ours")
            and "failed" not in row
        ),
        None,
    )
    measured = [row for row in single if "failed" not in row]
    if default is None or not measured:
        return []
    lines = ["", f"## One setting at a time: ours on {first['model']}, {first['tiles']}", ""]
    lines += ["| setting | images/s | ÷ default | GPU busy | GPU, MB |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in (default, *measured):
        ratio = row["images_per_s"] / default["images_per_s"]
        lines.append(
            f"| {row['setting'] or 'default'} | {row['images_per_s']:.2f} | {ratio:.3f} | {_share(row.get('gpu_busy'))}"
            f" | {_number(row.get('gpu_peak_mb'))} |"
        )
    best = max((default, *measured), key=lambda row: row["images_per_s"])
    return [*lines, "", f"Fastest: {best['setting'] or 'the default'}."]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
