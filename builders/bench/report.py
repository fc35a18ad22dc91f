"""The figures of `bench build` as a page of Markdown, with all that is needed to get them again."""

from typing import Any

from builders.bench.scripted_run import N_WORDS
from builders.bench.second_set import WANTED

BUILD_WAYS = {
    "index": "`vl-dermnet index`: decode and hash every photograph; once, before annotate",
    "build": "`vl-dermnet build --with-images`: check, hash, shards, card and checksums",
    "imagefolder": "`datasets` imagefolder, bytes put in as `push_to_hub` does, `to_parquet`; nothing checked",
    "imagefolder_paths": "`datasets` imagefolder, `to_parquet` alone: the files' paths, none of their bytes",
}
INDEX_WAYS = {
    "index": "`vl-dermnet index`, a process per core: decode, orient, RGB, sha256, rows",
    "pillow": "Pillow in one thread: each file decoded to its last pixel",
    "pillow_sha256": "the same with sha256",
    "pillow_per_core": "as many such Pillow loops at once as there are cores",
}
WANTED_BUILD, WANTED_INDEX, QUADRATIC = 0.5, 3.0, 2.0


def as_markdown(result: dict[str, Any]) -> str:
    """A page of Markdown."""
    host, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# build: what index, build, audit and a second description set cost",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB; {versions}.",
        f"{settings['n_files']:,} sample photographs, {settings['n_bytes'] / 1e6:,.0f} MB; {settings['rounds']} rounds "
        "in turns, medians of seconds, the greatest of peaks.",
        *_build_lines(result["build"]),
        *_index_lines(result["index"], settings["cores"]),
        *_second_set_lines(result["second_set"]),
        *_audit_lines(result["audit"]),
    ]
    return "\n".join(lines) + "\n"


def _build_lines(build: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Build",
        "",
        "Whole processes, the start of Python included. Peak memory is that of all processes together, pages that they "
        "share counted once, sampled twice a second.",
        "",
        "| way | wall, s | CPU, s | peak memory, MB | largest process, MB | written, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {BUILD_WAYS[way]} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['peak_mb']:.0f}"
        f" | {row['largest_process_mb']:.0f} | {row['mb_written']:.1f} |"
        for way, row in build["ways"].items()
    ]
    lines += ["", "| ratio to imagefolder with bytes | found | wanted | |", "| --- | ---: | ---: | --- |"]
    for name, title in (
        ("build_s", "seconds of build"),
        ("index_and_build_s", "seconds of index and build"),
        ("build_peak", "peak of build"),
        ("index_or_build_peak", "the larger peak of index and build"),
    ):
        found = build["ratios"][name]
        lines.append(f"| {title} | {found:.2f} | ≤ {WANTED_BUILD:.2f} | {_word(found <= WANTED_BUILD)} |")
    return lines


def _index_lines(index: dict[str, Any], n_cores: int) -> list[str]:
    ratios = index["ratios"]
    lines = [
        "",
        "## Index",
        "",
        "Without the start of Python, that of the index's processes included; all at the same niceness.",
        "",
        "| way | images/s | ÷ one Pillow loop | CPU, s |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way, title in INDEX_WAYS.items():
        ratio = ratios.get(way, 1.0)
        lines.append(f"| {title} | {index['images_per_s'][way]:.1f} | {ratio:.2f} | {index['cpu_s'][way]:.1f} |")
    lines += ["", f"Beside the loop with sha256, the index is {ratios['index_to_sha256']:.2f} times as fast."]
    return [*lines, why_not(index, n_cores)]


def why_not(index: dict[str, Any], n_cores: int) -> str:
    """Whether the index is as fast as wanted beside one Pillow loop; if not, why, from what was measured."""
    found = index["ratios"]["index"]
    if found >= WANTED_INDEX:
        return f"Wanted: {WANTED_INDEX:.0f} times a Pillow loop; met, with {found:.2f}."
    decoding, sha256 = index["share_decoding"], index["share_sha256"]
    rest = max(0.0, 1 - decoding - sha256)
    return (
        f"Wanted: {WANTED_INDEX:.0f} times a Pillow loop; not met, with {found:.2f}. Both decode every pixel with the "
        f"same Pillow, so {n_cores} cores give at most {n_cores} times one loop, and {n_cores} loops at once gave "
        f"{index['ratios']['pillow_per_core']:.2f}. Of the index's processor time the decoding of the loop is "
        f"{decoding:.0%}, sha256 {sha256:.0%}, and {rest:.0%} the rest: orientation, RGB, rows, starting the processes "
        f"and passing rows between them. With its cores {index['cores_busy']:.0%} busy, that makes {n_cores} × "
        f"{decoding:.2f} × {index['cores_busy']:.2f} = {n_cores * decoding * index['cores_busy']:.2f}."
    )


def _second_set_lines(second_set: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## A second description set",
        "",
        f"With the photographs and texts of {N_WORDS} words; shards in a chunk store of Xet on disk, which the stock "
        "wheel fills. Of all other files those that are new or changed count as a whole.",
        "",
        "| published | dataset, MB | new, MB | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in (("first", "one description set"), ("second", "the same and a second set")):
        n_bytes, new_bytes = second_set[name]["n_bytes"], second_set[name]["new_bytes"]
        lines.append(f"| {title} | {n_bytes / 1e6:.1f} | {new_bytes / 1e6:.1f} | {new_bytes / n_bytes:.2%} |")
    return [*lines, "", f"Wanted: at most {WANTED:.0%}; {_word(second_set['share'] <= WANTED)}."]


def _audit_lines(audit: dict[str, Any]) -> list[str]:
    sizes, exponents = audit["sizes"], audit["exponents"]
    parts = list(sizes[0]["seconds"])
    lines = [
        "",
        "## Audit",
        "",
        "Each sample holds the smaller one. `whole` is the process; p of n^p is between the smallest and the largest, "
        "– where the smallest took less than half a second.",
        "",
        f"| files | whole, s | {' | '.join(f'{part}, s' for part in parts)} | peak memory, MB |",
        f"| ---: | ---: | {' | '.join('---:' for _ in parts)} | ---: |",
    ]
    lines += [
        f"| {each['n_files']:,} | {each['wall_s']:.1f} | "
        f"{' | '.join(format(each['seconds'][part], '.1f') for part in parts)} | {each['peak_mb']:.0f} |"
        for each in sizes
    ]
    powers = [_power(exponents[part]) for part in ("whole", *parts)]
    lines.append(f"| p of n^p | {' | '.join(powers)} | |")
    last = exponents["whole, last doubling"]
    if last is not None:
        verdict = "less than quadratic" if last < QUADRATIC else "quadratic or worse"
        lines += ["", f"p of the whole in the last doubling: {last:.2f}, {verdict}."]
    return lines


def _power(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _word(is_met: bool) -> str:
    return "met" if is_met else "not met"
