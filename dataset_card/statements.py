"""What a reader must know, said once for the card and for Croissant: uses, risks, people, upkeep. Plain text."""

from builders.dataset_folder import DescriptionSet
from builders.dermnet import CLASSES, ENOUGH_CLASSES
from dataset_card.facts import Facts

DIRECT_USES = (
    "research on classifying dermatology photographs with image and text together",
    "research on the text that vision-language models write about skin: what it gets right, leaves out and makes up",
    "research on splits that leak, and on how copies change what a test measures",
)
OUT_OF_SCOPE = (
    "Anything that touches a patient: no diagnosis, triage, treatment, second opinion or clinical documentation. The"
    " texts are no ground truth for findings, no medical record and no teaching material. Nobody on the photographs may"
    " be identified."
)
PRODUCERS = (
    "Whoever took and published the photographs of the source collection; its own documentation tells what is known of"
    " them. This dataset adds texts, ids and splits, and claims no right to a photograph."
)
ANNOTATORS = (
    "Vision-language models, one per description set. Nobody wrote, corrected or approved a description, and no"
    " clinician has reviewed them."
)
PEOPLE = (
    "Photographs of skin are photographs of people, minors among them, and may show faces, genitals, tattoos or scars"
    " by which somebody can be recognised. This dataset holds no name, and no record of anybody's consent. Descriptions"
    " may state an apparent age, sex or skin colour that nobody confirmed."
)
PREPROCESSING = (
    "Every photograph was decoded to its last pixel, turned upright by its EXIF orientation, and given to the model as"
    " RGB; files that could not be decoded were left out and are listed. Tiles and image tokens are counted per row."
)
SOCIAL_IMPACT = (
    "Fluent medical prose that nobody checked can be taken for a finding. It must not be shown to patients or used to"
    " train systems for them. Its worth is in measuring what such text adds to a photograph, and what it makes up."
)


DERMNET = (
    "The classes are those of DermNet as Kaggle holds it. Its photographs are copyrighted, the terms of passing them on"
    " are unclear, and nobody here has verified the licence that is named there; a licence of the texts grants nothing"
    " for them."
)
UNKNOWN_SOURCE = "An existing collection; whoever publishes this dataset has not said which, whose, and on which terms."


def source(facts: Facts) -> str:
    """What the photographs are: in the publisher's words, else what the class names give away."""
    if facts.choices.source:
        return facts.choices.source
    names = set(facts.statistics[facts.primary.name].labels)
    return DERMNET if len(names & CLASSES.keys()) >= ENOUGH_CLASSES else UNKNOWN_SOURCE


def collection(facts: Facts) -> str:
    """Where photographs and texts come from."""
    splits = facts.splits
    return (
        f"{source(facts)} {splits['n_rows']:,} usable photographs were indexed by path and sha256. Each was shown to a"
        " vision-language model with one prompt and nothing else: neither file name nor label. What the model wrote is"
        " kept uncut, with the engine's token counts and flags found by rule."
    )


def annotation(described: DescriptionSet) -> str:
    """How one set was written."""
    prompt = described.run.get("prompt", {})
    return (
        f"{described.name}: one answer per photograph to the prompt {prompt.get('name')} with the sha256"
        f" {prompt.get('sha256')}, which stands in full in the provenance; flagged answers may have been asked for"
        " again, and none was edited"
    )


def risks(facts: Facts) -> list[tuple[str, str]]:
    """Each limitation as a short name and what it means; those with numbers take them from the shards."""
    statistics, splits = facts.statistics, facts.splits
    leaks = ", ".join(
        f"{counted.flags['names_label']:,} of {counted.n_rows:,} descriptions of {name}"
        for name, counted in statistics.items()
    )
    found = [
        (
            "Machine-written and unreviewed",
            "the texts may name findings that are not there, miss those that are, and invent history, size, duration or"
            " body site",
        ),
        (
            "A doctor's voice is style",
            "where a prompt asks for a clinician's register, fluent terms are no sign of expertise",
        ),
        ("Labels are folder names", "those of the source, coarse, noisy and not confirmed by the texts"),
        (
            "Text can leak the label",
            "where a model names a disease, text-only accuracy measures naming and not perception; the flag names_label"
            f" marks {leaks}",
        ),
        (
            "Skin tones and body sites",
            "they may be represented unevenly in the source, and models may describe darker skin and rarer sites less"
            " well; this dataset records neither, so nothing here measures it",
        ),
    ]
    if splits["n_excluded_across_splits"]:
        found.append(
            (
                "The source's split leaks",
                f"photographs that repeat one of an earlier split: {splits['n_excluded_across_splits']:,}; report"
                " split_clean beside split_official",
            )
        )
    return [
        *found,
        (
            "Near-copies",
            "two photographs of one lesion, crops and mirrored versions may still stand on both sides of a split",
        ),
        (
            "Watermarks and writing",
            "where photographs carry them, a model may have read them, and they may tell the class",
        ),
        (
            "One model, one prompt, one decoding per set",
            "differences between sets are differences of the whole pipeline",
        ),
        (
            "Terms of others",
            "the photographs belong to their owners; the terms of the models that wrote the texts may apply to these",
        ),
    ]


def contact(facts: Facts) -> str:
    """Whom to write to, to have a row removed."""
    where = "open a discussion on the dataset's page (Community)"
    if facts.choices.contact:
        where = f"write to {facts.choices.contact}, or {where}"
    return f"To have a row removed, {where} and name its image_id. No reason is needed."


def maintenance(facts: Facts) -> str:
    """How the dataset changes and what stays."""
    return (
        "A new model adds a description set beside the others; published sets are not edited. Every version stays"
        f" loadable by its commit. {contact(facts)}"
    )
