"""The figures of `bench train` as a page of Markdown, with all that is needed to get them again."""

from typing import Any

WAYS = {
    "ours": "the loop of `vl-dermnet train`, packed pixels to new weights, augmented",
    "bare": "forward, backward and step on random tensors of the same shapes",
    "trainer": "the transformers `Trainer`, same model, packed pixels, batch, optimizer and augmentation",
    "image_only": "the bare loop of image only",
    "text_only": "the bare loop of text only",
}


def as_markdown(result: dict[str, Any]) -> str:
    """A page of Markdown."""
    host, settings, ratios = result["machine"], result["settings"], result["ratios"]
    shape = settings["shape"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    gpus = ", ".join(host["gpus"]) or "no GPU"
    mfu = "" if result["mfu"] is None else f", {result['mfu']:.1%} of the device's peak (MFU)"
    kept = "All of them keep what they free (mallopt), as `train` does. " if settings["keeps_freed_memory"] else ""
    lines = [
        "# train: what a step costs",
        "",
        f"`{result['command']}`",
        "",
        f"{result['at']}; {host['n_cores']} cores, {host['memory_gib']} GiB, {gpus}; {versions}.",
        f"ViT and BERT of {shape['n_layers']} layers and {shape['dim']} dimensions with random weights, images of "
        f"{shape['image_px']} px in patches of {shape['patch_px']}, {shape['n_text_tokens']} tokens, "
        f"{settings['fusion']}, batches of {settings['batch_size']}{', bf16' if settings['bf16'] else ''}, "
        f"{settings['threads']} threads.",
        f"{settings['rounds']} rounds of {settings['steps_per_round']} steps each, in turns whose order changes, "
        f"behind one that is not timed; medians. {kept}Ours: {result['images_per_s']:.1f} images/s, "
        f"{result['flops_per_step'] / 1e9:.1f} GFLOP per step{mfu}.",
        "",
        "| loop | steps/s |",
        "| --- | ---: |",
    ]
    lines += [f"| {name}: {WAYS[name]} | {value:.3f} |" for name, value in result["steps_per_s"].items()]
    lines += [
        "",
        "| ratio of a round | median | 95 % interval | least | greatest | wanted |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, title, wanted in (
        ("ours_to_bare", "ours ÷ bare, steps/s", "≥ 0.95"),
        ("ours_to_trainer", "ours ÷ Trainer, steps/s", "≥ 1.00"),
        ("attention_pooling_to_both_alone", "time of attention pooling ÷ (image only + text only)", "≤ 1.05"),
    ):
        ratio = ratios[name]
        interval = "–" if ratio["interval"] is None else "{:.3f} to {:.3f}".format(*ratio["interval"])
        numbers = f"{ratio['median']:.3f} | {interval} | {ratio['least']:.3f} | {ratio['greatest']:.3f}"
        lines.append(f"| {title} | {numbers} | {wanted} |")
    if result["accuracy"]:
        lines += [
            "",
            "Test accuracy after the same epochs from the same first weights, with the same crops of each epoch",
        ]
        lines += [f"and each in its own order of rows, on made-up data; both with their {result['accuracy_of']}.", ""]
        lines += ["| seed | ours | Trainer |", "| ---: | ---: | ---: |"]
        lines += [
            f"| {seed} | {found['ours']:.3f} | {found['trainer']:.3f} |"
            for seed, found in enumerate(result["accuracy"])
        ]
    return "\n".join(lines) + "\n"
