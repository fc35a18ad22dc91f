"""Every number that a dataset says about itself, counted again from its shards and compared."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builders.check.fault import Fault, visible
from builders.check.front_matter import differences, parse_card, read_readme
from dataset_card.card import CROISSANT, README, render_card
from dataset_card.choices import CARD_VERSION, read_mark
from dataset_card.croissant import croissant
from dataset_card.drawing import plot_in, png_of
from dataset_card.facts import Facts, gather
from dataset_card.plots import ASSETS, plots_of

MAX_SHOWN = 240  # characters of a line


def check_card(dataset: Path) -> tuple[list[Fault], list[str]]:
    """What README.md, croissant.json and the plots say otherwise than the shards; and what could not be judged.

    The shards themselves must be sound. The text of a card that another version wrote is not compared line by line,
    because other words are no fault; its YAML, its Croissant file and its plots are.
    """
    readme = dataset / README
    text = readme.read_bytes().decode("utf-8", "replace") if readme.is_file() else ""
    mark = read_mark(text)
    if mark is None:
        seen = "no such file" if not text else "a last line that is not this program's"
        return [Fault("card", README, "", seen, "the card that `vl-dermnet build` writes")], []
    version, choices = mark
    facts = gather(dataset, choices)
    allowed, body = parse_card(render_card(facts))
    faults = [*_check_metadata(facts, allowed), *_check_croissant(facts), *_check_plots(facts)]
    if version != CARD_VERSION:
        return faults, [f"the text of {README}: version {version} of the card wrote it, this is version {CARD_VERSION}"]
    return [*faults, *_check_text(text, body)], []


def _check_metadata(facts: Facts, allowed: dict[str, Any]) -> Iterator[Fault]:
    """The YAML, key by key, as a reader parses it; `configs` was compared before."""
    try:
        seen, _ = read_readme(facts.dataset)
    except ValueError as error:
        yield Fault("card", README, "YAML", visible(str(error)), "the YAML of its shards")
        return
    for key in [*allowed, *(key for key in seen if key not in allowed)]:
        if key != "configs":
            yield from differences("card", README, str(key), seen.get(key), allowed.get(key))


def _check_text(text: str, body: str) -> Iterator[Fault]:
    """The text behind the YAML, line by line."""
    head, _, behind = text.partition("\n---\n")
    seen, allowed, n_before = behind.split("\n"), body.split("\n"), head.count("\n") + 2
    matcher = difflib.SequenceMatcher(None, seen, allowed, autojunk=False)
    for what, first, last, other_first, other_last in matcher.get_opcodes():
        if what == "equal":
            continue
        for step in range(max(last - first, other_last - other_first)):
            old = seen[first + step] if first + step < last else None
            new = allowed[other_first + step] if other_first + step < other_last else None
            place = f"line {n_before + min(first + step, last) + 1}"
            yield Fault("card", README, place, _line(old), _line(new))


def _line(line: str | None) -> str:
    if line is None:
        return "no line"
    return f"'{visible(line[:MAX_SHOWN])}{'…' if len(line) > MAX_SHOWN else ''}'"


def _check_croissant(facts: Facts) -> Iterator[Fault]:
    file = facts.dataset / CROISSANT
    if not file.is_file():
        yield Fault("card", CROISSANT, "", "no such file", "the Croissant description of the shards")
        return
    try:
        seen = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        yield Fault("card", CROISSANT, "", f"cannot be read: {visible(str(error))}", "JSON")
        return
    yield from differences("card", CROISSANT, "", seen, croissant(facts))


def _check_plots(facts: Facts) -> Iterator[Fault]:
    """The numbers that each plot carries and, where the same versions drew it, every byte."""
    for name, plot in plots_of(facts.statistics).items():
        file, path = facts.dataset / ASSETS / name, f"{ASSETS}/{name}"
        if not file.is_file():
            yield Fault("card", path, "", "no such file", f"a plot of {plot['title']}")
            continue
        try:
            seen, is_drawn_here = plot_in(file)
        except ValueError as error:
            yield Fault("card", path, "", visible(str(error)), f"a plot of {plot['title']} that carries its numbers")
            continue
        wrong = list(differences("card", path, "", seen, plot))
        yield from wrong
        if is_drawn_here and not wrong and file.read_bytes() != png_of(plot):
            yield Fault("card", path, "", "other pixels", "what its numbers look like when they are drawn")
