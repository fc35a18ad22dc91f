"""The figures of `bench train --gpu` as a page of Markdown."""

from statistics import median
from typing import Any

WANTED = {
    "÷ bare": ("ours_to_bare", "≥", 0.95),
    "÷ Trainer": ("ours_to_trainer", "≥", 1.0),
    "pooling ÷ both alone": ("attention_pooling_to_both_alone", "≤", 1.05),
}
COLUMNS = ("batch", "compiled", "images/s", "MFU", "memory, MB", *WANTED)


def as_markdown(result: dict[str, Any]) -> str:
    """A page: batches, the epoch, the features, and what could not be measured."""
    host, settings, cases = result["machine"], result["settings"], result["cases"]
    shape = settings["shape"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    measured = {name: case for name, case in cases.items() if "failed" not in case}
    lines = [
        "# train: steps, an epoch and features at full size",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {', '.join(host['gpus']) or 'no GPU'}; "
        f"{versions}.",
        f"ViT and BERT of {shape['n_layers']} layers and {shape['dim']} dimensions with random weights, images of "
        f"{shape['image_px']} px in patches of {shape['patch_px']}, {shape['n_text_tokens']} tokens, "
        f"{settings['fusion']}{', bf16' if settings['bf16'] else ''}.",
        f"{settings['rounds']} rounds of {settings['steps_per_round']} steps, in turns; medians of the rounds' ratios, "
        "the smallest and greatest behind them, and whether the median is what was wanted: "
        + ", ".join(f"{column} {sign} {wanted:.2f}" for column, (_, sign, wanted) in WANTED.items())
        + ".",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| ---: | --- |{' ---: |' * (len(COLUMNS) - 2)}",
    ]
    for name, case in measured.items():
        if name.startswith("steps"):
            cells = [_cell(case[key], sign, wanted) for key, sign, wanted in WANTED.values()]
            mfu = "" if case["mfu"] is None else f"{case['mfu']:.1%}"
            memory = "" if case["peak_mb"] is None else f"{case['peak_mb']:,.0f}"
            lines.append(
                f"| {case['batch_size']} | {'yes' if case['is_compiled'] else 'no'} | {case['images_per_s']:,.1f}"
                f" | {mfu} | {memory} | {' | '.join(cells)} |"
            )
    epoch, features = measured.get("epoch"), measured.get("features")
    if epoch:
        seconds = median(epoch["epoch_seconds"])
        lines += [
            "",
            f"An epoch of {epoch['n_train']:,} packed images, augmented, and validation on {epoch['n_validation']:,}, "
            f"batch {epoch['batch_size']}{', compiled' if epoch['is_compiled'] else ''}, pixels "
            f"{'in GPU memory' if epoch['are_pixels_on_gpu'] else 'memory-mapped'}: {seconds:.1f} s, "
            f"{epoch['n_train'] / seconds:,.0f} train images/s.",
        ]
    if features:
        lines += [
            "",
            f"Frozen features of {features['n']:,} packed images of {features['px']} px "
            f"({settings['feature_backbone']}), to their file: {features['seconds']:.1f} s, "
            f"{features['images_per_s']:,.0f} images/s.",
        ]
    failed = {name: case["failed"] for name, case in cases.items() if "failed" in case}
    if failed:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def _cell(ratio: dict[str, Any], sign: str, wanted: float) -> str:
    middle = ratio["median"]
    is_met = middle >= wanted if sign == "≥" else middle <= wanted
    return f"{middle:.3f} ({ratio['least']:.3f} – {ratio['greatest']:.3f}), {'met' if is_met else 'not met'}"
