"""DermNet as Kaggle holds it: its 23 classes and their numbers of files, to compare an index with.

The counts are facts about that set. Source: the index of its 19,559 files in the GitHub repository
saivishwababu/DermNet-Representation-Analysis @185aa8b, https://github.com/saivishwababu/DermNet-Representation-Analysis
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from builders.schema import IndexRow

SPLITS = ("train", "test")
CLASSES: dict[str, tuple[int, int]] = {  # folder name -> files in train/, in test/
    "Acne and Rosacea Photos": (840, 312),
    "Actinic Keratosis Basal Cell Carcinoma and other Malignant Lesions": (1149, 288),
    "Atopic Dermatitis Photos": (489, 123),
    "Bullous Disease Photos": (448, 113),
    "Cellulitis Impetigo and other Bacterial Infections": (288, 73),
    "Eczema Photos": (1235, 309),
    "Exanthems and Drug Eruptions": (404, 101),
    "Hair Loss Photos Alopecia and other Hair Diseases": (239, 60),
    "Herpes HPV and other STDs Photos": (405, 102),
    "Light Diseases and Disorders of Pigmentation": (568, 143),
    "Lupus and other Connective Tissue diseases": (420, 105),
    "Melanoma Skin Cancer Nevi and Moles": (463, 116),
    "Nail Fungus and other Nail Disease": (1040, 261),
    "Poison Ivy Photos and other Contact Dermatitis": (260, 65),
    "Psoriasis pictures Lichen Planus and related diseases": (1405, 352),
    "Scabies Lyme Disease and other Infestations and Bites": (431, 108),
    "Seborrheic Keratoses and other Benign Tumors": (1371, 343),
    "Systemic Disease": (606, 152),
    "Tinea Ringworm Candidiasis and other Fungal Infections": (1300, 325),
    "Urticaria Hives": (212, 53),
    "Vascular Tumors": (482, 121),
    "Vasculitis Photos": (416, 105),
    "Warts Molluscum and other Viral Infections": (1086, 272),
}
N_FILES = sum(map(sum, CLASSES.values()))
ENOUGH_CLASSES = 12  # more than half of the names, letter by letter: no other set has them


def files_per_class(rows: Iterable[IndexRow]) -> Counter[tuple[str, str]]:
    """How many files an index has of each label and split."""
    return Counter((row.label, row.split) for row in rows)


def compare_with_dermnet(files: Mapping[tuple[str, str], int]) -> list[str]:
    """What an index of DermNet has more or less than Kaggle's set, in lines to show; none where it is another set.

    `files` counts the files of each label and split.

    It is DermNet where at least `ENOUGH_CLASSES` of its class names are labels. The first line sums up, the others name
    a class and split each. Files count whether they can be decoded or not.
    """
    here = Counter(files)
    labels = {label for label, _ in here}
    n_known = len(labels & CLASSES.keys())
    if n_known < ENOUGH_CLASSES:
        return []
    known = {
        (label, split): n_files
        for label, per_split in CLASSES.items()
        for split, n_files in zip(SPLITS, per_split, strict=True)
    }
    differing = sorted(each for each in here.keys() | known.keys() if here[each] != known.get(each, 0))
    if not differing:
        return [
            f"DermNet: all {len(CLASSES)} classes and {N_FILES:,} files of Kaggle's set, with its numbers per class"
        ]
    return [
        f"DermNet: {n_known} of {len(CLASSES)} classes, {here.total():,} files; Kaggle's set has {N_FILES:,}",
        *(_difference(label, split, here[label, split], known.get((label, split), 0)) for label, split in differing),
    ]


def _difference(label: str, split: str, n_here: int, n_known: int) -> str:
    name = label or "(no class folder)"
    return f"  {split}/{name}: {n_here:,} files, known are {n_known:,} ({n_here - n_known:+,})"
