"""Write `report.html` of an experiment folder: everything on it follows from the folder's files and the dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from builders.errors import UserError
from builders.files import read_json, write_atomic
from builders.foreign_text import content_policy, visible
from train.origin import read_origin
from train.report.calibrated import calibration_of
from train.report.curves import curves_of
from train.report.errors import errors_of, hardest_errors
from train.report.explained import attention_of_group, shown_rows
from train.report.groups import Group, groups_of
from train.report.photographs import Examples, read_examples
from train.report.results_table import results_table
from train.report.runs import Found, read_distances, read_runs
from train.report.scores import scores_of
from train.report.slices import distance_of, missing_of
from train.report.svg import swatch

NAME = "report.html"
_FOLDER = Path(__file__).parent
# In the order of the page: what a part is called in the list of what is missing, and by its key in a protocol.
PARTS = {
    "curves": "Learning curves",
    "scores": "Classes",
    "calibration": "Calibration",
    "distance": "Distance to train",
    "missing": "Missing modalities",
    "attention": "Attention",
    "errors": "Hardest errors",
}


def write_report(folder: Path, images: str | None = None, say: Callable[[str], object] = lambda _: None) -> Path:
    """Write the report of the experiment in `folder` and give its path.

    `images` is a folder or zip of the photographs, by default what the experiment was trained on. A part whose files
    are not there is left out, and the page says why. Raises `UserError` where no run is finished.
    """
    table = results_table(folder)
    found = read_runs(folder)
    if not found.runs:
        raise UserError(f"no predictions in {folder} can be read: {'; '.join(found.problems)}", "train again")
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    groups = groups_of(found.runs, table.titles)
    examples = _examples(config, images, groups)
    for reason in examples.reasons:
        say(f"report: {reason}")
    protocols = [_protocol(folder, group, examples) for group in groups]
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    page = environment.get_template("page.html.jinja").render(
        policy=content_policy([], [style]),
        style=style,
        facts=_facts(config, found, groups),
        title=visible(folder.resolve().name),
        texts=read_origin(folder).texts,
        table=table,
        protocols=protocols,
        is_refit=bool(config.get("is_refit")),
        parts=PARTS,
        absent_list=_absent(config, found, protocols, examples),
        swatch=swatch,
    )
    out = folder / NAME
    write_atomic(out, lambda part: part.write_text(page, encoding="utf-8"))
    return out


def _protocol(folder: Path, group: Group, examples: Examples) -> dict[str, Any]:
    distances = read_distances(folder, group.protocol)
    return {
        "name": group.protocol,
        "chosen": group.title_of(group.chosen),
        "why": group.why,
        "curves": curves_of(group),
        "scores": scores_of(group),
        "calibration": calibration_of(group),
        "distance": distance_of(group, distances),
        "missing": missing_of(group),
        "attention": attention_of_group(group, examples),
        "errors": errors_of(group, examples, distances and distances.by_id),
    }


def _examples(config: dict[str, Any], images: str | None, groups: list[Group]) -> Examples:
    """Texts and photographs of every image that is shown; one whose label is another now is not the same image."""
    expected: dict[str, str] = {}
    for group in groups:
        for error in hardest_errors(group) or []:
            expected[error.image_id] = error.label
        run, rows = shown_rows(group) or (None, [])
        if run is not None:
            labels = dict(zip(run.test.image_ids, run.test.labels.tolist(), strict=True))
            expected |= {row["image_id"]: run.class_names[labels[row["image_id"]]] for row in rows}
    commits = [run.record.get("commit") for group in groups for runs in group.models.values() for run in runs]
    examples = read_examples(config, images, set(expected), next((each for each in commits if each), None))
    changed = [key for key, example in examples.by_id.items() if example.label != expected[key]]
    for key in changed:
        del examples.by_id[key]
    if changed:
        examples.reasons.append(f"{len(changed)} rows of the dataset have another label than when this was trained")
    return examples


def _facts(config: dict[str, Any], found: Found, groups: list[Group]) -> list[tuple[str, str]]:
    """What was trained, and on what, without a machine's paths."""
    first = found.runs[0]
    counts = [
        f"{group.protocol}: {_counts(group.chosen_runs[0].record, len(group.chosen_runs[0].test.labels))}"
        for group in groups
    ]
    facts = [
        ("Dataset", _place(config.get("dataset"), config.get("commit") or config.get("revision"))),
        ("Description set", config.get("set_name") or "the primary one"),
        ("Images", "; ".join(counts)),
        ("Classes", str(len(first.class_names))),
        *_encoders(config),
        ("Training", _training(config)),
        ("Finished runs", _finished(config, found)),
        ("Fingerprint of the data", str(config.get("fingerprint", "unknown"))[:16]),
    ]
    return [(name, visible(value)) for name, value in facts]


def _encoders(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What stood for image and text: the backbones, or what the features of a file are of."""
    if config.get("features"):
        return [
            (
                f"{kind.capitalize()} features",
                config.get(f"{kind}_features_of") or " + ".join(config[f"{kind}_features"]),
            )
            for kind in ("image", "text")
        ]
    return [
        (f"{kind.capitalize()} backbone", _place(config.get(f"{kind}_backbone"), _commit(config, kind)))
        for kind in ("image", "text")
    ]


def _commit(config: dict[str, Any], kind: str) -> str | None:
    """The commit of a backbone that was found, or else what was asked for."""
    return config.get("backbones", {}).get(kind, {}).get("revision") or config.get(f"{kind}_revision")


def _counts(record: dict[str, Any], n_test: int) -> str:
    before = [
        f"{record[key]:,} {name}"
        for key, name in (("n_train", "train"), ("n_validation", "validation"))
        if key in record
    ]
    return ", ".join([*before, f"{n_test:,} test"])


def _place(source: Any, revision: Any) -> str:
    if not source:
        return "unknown"
    name = Path(str(source)).name if Path(str(source)).is_absolute() else str(source)
    return f"{name} at {revision}" if revision else name


def _training(config: dict[str, Any]) -> str:
    if not config:
        return "unknown: config.json is not there"
    how = "frozen backbones, heads trained" if config.get("is_frozen") else _tuned(config)
    if config.get("caches_frozen_blocks"):
        how += f", on images {'mirrored at random, not shifted' if config.get('is_augmented') else 'not augmented'}"
    if config.get("head_epochs"):
        how += f", after {config['head_epochs']} epochs of the heads alone"
    if config.get("is_refit"):
        how += ", then again on train and validation together for the test"
    return (
        f"{how}; {config.get('epochs')} epochs, batches of {config.get('batch_size')}, learning rate {config.get('lr')}"
    )


def _tuned(config: dict[str, Any]) -> str:
    """Which parts of the encoders are trained beside the head."""
    layers = {kind: config.get(f"{kind}_layers") for kind in ("image", "text")}
    if set(layers.values()) == {0}:
        return "heads trained, backbones as they were"
    rank = config.get("lora")
    how = f"adapters of rank {rank} trained on the backbones" if rank else "backbones fine-tuned"
    if set(layers.values()) == {None}:
        return how
    return f"{how}: {', '.join(f'{kind} {_blocks(n_layers)}' for kind, n_layers in layers.items())}"


def _blocks(n_layers: int | None) -> str:
    if n_layers is None:
        return "all blocks"
    return "none" if n_layers == 0 else f"the last {n_layers} block{'s' * (n_layers > 1)}"


def _finished(config: dict[str, Any], found: Found) -> str:
    seconds = sum(float(run.record.get("seconds", 0)) for run in found.runs)
    n_controls = sum(run.is_control for run in found.runs)
    controls = f", and {n_controls} of controls" if n_controls else ""
    return f"{len(found.runs) - n_controls}{_of_planned(config)}{controls}, {seconds:,.0f} s of training"


def _of_planned(config: dict[str, Any]) -> str:
    if not {"models", "n_seeds", "protocol"} <= set(config):
        return ""
    n_protocols = 2 if config["protocol"] == "both" else 1
    return f" of {len(config['models']) * config['n_seeds'] * n_protocols} that were asked for last"


def _absent(
    config: dict[str, Any], found: Found, protocols: list[dict[str, Any]], examples: Examples
) -> list[tuple[str, str]]:
    """What the page does not hold, and why; the same reason once."""
    absent: dict[tuple[str, str], list[str]] = {}
    for protocol in protocols:
        for key, name in PARTS.items():
            if "absent" in protocol[key]:
                absent.setdefault((name, protocol[key]["absent"]), []).append(protocol["name"])
    listed = [
        (name if len(names) == len(protocols) else f"{name} ({', '.join(names)})", why)
        for (name, why), names in absent.items()
    ]
    listed += [("Texts and photographs", reason) for reason in examples.reasons]
    listed += [("A file", visible(problem)) for problem in found.problems]
    if len(protocols) == 1:
        listed.append(("Protocols", f"only {protocols[0]['name']} was trained; both side by side show what leaks"))
    if len({run.seed for run in found.runs}) == 1:
        listed.append(("Standard deviations", "there is a single seed: one run says little about the next"))
    return listed
