"""The words that give a class away in a description: found in the names of the classes, and masked in a text."""

import re
from collections.abc import Iterable

MASK = "condition"  # says that something was named, and not what
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_COMMON = frozenset(
    {
        "and",
        "or",
        "other",
        "the",
        "of",
        "with",
        "photos",
        "photo",
        "pictures",
        "images",
        "skin",
        "disease",
        "diseases",
        "disorder",
        "disorders",
        "related",
        "benign",
        "conditions",
        "condition",
        "infections",
        "infection",
        "eruptions",
        "hyphen",
    }
)
# What DermNet's class folders are also called; keys are words of the folder's name.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "acne": ("comedonal acne", "acne vulgaris"),
    "alopecia": ("hair loss disorder", "alopecia areata"),
    "atopic": ("eczema",),
    "candidiasis": ("thrush", "yeast infection"),
    "cellulitis": ("erysipelas",),
    "eczema": ("atopic dermatitis", "eczematous dermatitis"),
    "hives": ("urticaria",),
    "hpv": ("human papillomavirus", "condyloma"),
    "keratosis": ("keratoses",),
    "keratoses": ("keratosis",),
    "lupus": ("lupus erythematosus",),
    "melanoma": ("malignant melanoma",),
    "moles": ("mole", "naevus"),
    "molluscum": ("molluscum contagiosum",),
    "nail": ("onychomycosis",),
    "nevi": ("nevus", "naevus", "naevi"),
    "psoriasis": ("psoriatic",),
    "ringworm": ("tinea",),
    "scabies": ("sarcoptes",),
    "tinea": ("ringworm", "dermatophytosis", "dermatophyte"),
    "urticaria": ("hives",),
    "vasculitis": ("vasculitic",),
    "warts": ("wart", "verruca", "verrucae"),
}


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; `acne-like` and `Bowen's` are one each."""
    return _WORD.findall(text.lower())


def class_terms(labels: Iterable[str]) -> frozenset[str]:
    """What must not stand in a description, or the text gives the class away: the classes' words and their synonyms.

    `Acne and Rosacea Photos` gives `acne`, `rosacea`, and what `SYNONYMS` knows of them. Words below four letters and
    words that name no class (`skin`, `photos`, `other`) are left out.
    """
    terms: set[str] = set()
    for label in labels:
        words = [word for word in words_of(label) if len(word) > 3 or word in SYNONYMS]
        for word in words:
            if word not in _COMMON:
                terms |= {word, *SYNONYMS.get(word, ())}
    return frozenset(terms)


def mask_terms(text: str, terms: frozenset[str]) -> tuple[str, int]:
    """`text` with each of `terms` replaced by `MASK`, and how many were; everything else stays as it is.

    Of overlapping terms the longest goes. A word with hyphens goes whole where one of its parts is a term
    (`psoriasis-like`), and so does a possessive.
    """
    words = list(_WORD.finditer(text))
    lowered = [word.group().lower() for word in words]
    by_words = {tuple(words_of(term)) for term in terms}
    longest = max((len(term) for term in by_words), default=0)
    kept: list[str] = []
    end = place = n_masked = 0
    while place < len(words):
        sizes = [
            n for n in range(min(longest, len(words) - place), 0, -1) if tuple(lowered[place : place + n]) in by_words
        ]
        if not sizes and any((part,) in by_words for part in re.split(r"[-'’]", lowered[place])):
            sizes = [1]
        if sizes:
            kept += [text[end : words[place].start()], MASK]
            end = words[place + sizes[0] - 1].end()
            n_masked += 1
        place += sizes[0] if sizes else 1
    return "".join([*kept, text[end:]]), n_masked
