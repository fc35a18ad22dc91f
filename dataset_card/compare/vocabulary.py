"""The closed vocabulary in which descriptions are compared: attributes of a lesion, their values, and words for them.

The values are those of the findings schema `derm` where it has them, so that the two can be read beside each other.
"""

_EDGES = ("border", "borders", "margin", "margins", "edge", "edges")
_ARE = ("is", "are", "appear", "appears")


def _edges(*adjectives: str) -> str:
    """Ways to give an edge an adjective, as phrases."""
    before = (f"{adjective} {edge}" for adjective in adjectives for edge in _EDGES)
    after = (f"{edge} {verb} {adjective}" for adjective in adjectives for edge in _EDGES for verb in _ARE)
    return ", ".join((*before, *after))


# Attribute -> value -> words and phrases for it, in lower case, without hyphens, between commas. The value "" is for
# phrases that only look like one.
ATTRIBUTES: dict[str, dict[str, str]] = {
    "colour": {
        "red": "red, reddish, reddened, redness, erythema, erythematous",
        "pink": "pink, pinkish",
        "purple": "purple, purplish, violet, violaceous",
        "brown": "brown, brownish, tan, tanned",
        "black": "black, blackish",
        "grey": "grey, gray, greyish, grayish",
        "blue": "blue, bluish",
        "white": "white, whitish, hypopigmented, hypopigmentation",
        "yellow": "yellow, yellowish, yellowed",
        "orange": "orange",
        "skin-coloured": "skin coloured, skin colored, flesh coloured, flesh colored, skin toned, flesh toned",
    },
    "shape": {
        "round": "round, rounded, circular",
        "oval": "oval, ovoid, elliptical",
        "irregular": "irregularly shaped, irregular shape, irregular in shape, asymmetric, asymmetrical",
        "linear": "linear, streak, streaks",
        "annular": "annular, ring shaped, ring like",
        "dome": "dome shaped",
    },
    "border": {
        "well defined": ", ".join(
            f"{how} {what}"
            for how in ("well", "sharply", "clearly")
            for what in ("defined", "demarcated", "circumscribed")
        ),
        "poorly defined": "indistinct, blurry, blurred, "
        + ", ".join(
            f"{how} {what}" for how in ("poorly", "ill") for what in ("defined", "demarcated", "circumscribed")
        ),
        "irregular": _edges("irregular", "jagged", "uneven"),
        "raised": _edges("raised", "rolled", "elevated"),
    },
    "surface": {
        "smooth": "smooth",
        "scaly": "scaly, scale, scales, scaling, flaky, flaking, flakes",
        "crusted": "crust, crusts, crusted, crusting, crusty, scab, scabs, scabbed, scabbing",
        "rough or warty": "rough, roughened, warty, wart like, verrucous",
        "shiny": "shiny, glossy, pearly",
        "moist or weeping": "moist, weeping, oozing, exudate, exudative, exuding",
        "ulcerated": "ulcer, ulcers, ulcerated, ulceration",
        "lichenified": "lichenified, lichenification",
        "umbilicated": "umbilicated, umbilication",
    },
    "lesion_type": {
        "macule": "macule, macules, macular",
        "patch": "patch, patches, patchy",
        "papule": "papule, papules, papular, bump, bumps",
        "plaque": "plaque, plaques",
        "nodule": "nodule, nodules, nodular",
        "tumour": "tumour, tumours, tumor, tumors, mass, masses",
        "vesicle": "vesicle, vesicles, vesicular, blister, blisters",
        "bulla": "bulla, bullae, bullas, bullous",
        "pustule": "pustule, pustules, pustular",
        "wheal": "wheal, wheals, hives",
        "cyst": "cyst, cysts, cystic",
        "comedo": "comedo, comedones, comedonal, comedos, blackhead, blackheads, whitehead, whiteheads",
        "erosion": "erosion, erosions, eroded",
        "fissure": "fissure, fissures, fissured, fissuring",
        "scar": "scar, scars, scarred, scarring",
        "telangiectasia": "telangiectasia, telangiectasias, telangiectases, telangiectasis",
        "purpura": "purpura, purpuric, petechiae",
    },
    "distribution": {
        "single": "single, solitary, isolated",
        "few": "few",
        "multiple": "multiple, numerous, several, many",
        "grouped": "grouped, clustered, cluster, clusters",
        "confluent": "confluent, coalescing, coalesced, coalescent",
        "symmetrical": "symmetrical, symmetric, symmetrically",
        "widespread": "widespread, diffuse, diffusely, generalised, generalized",
    },
    "site": {
        "scalp": "scalp",
        "face": "face, facial, cheek, cheeks, nose, nasal, forehead, chin",
        "eye area": "eye, eyes, eyelid, eyelids, periorbital",
        "ear": "ear, ears, earlobe, earlobes",
        "lips or mouth": "lip, lips, mouth, oral, perioral, tongue",
        "neck": "neck",
        "chest or abdomen": "chest, abdomen, abdominal, trunk, torso",
        "back": "back",
        "arm": "arm, arms, forearm, forearms, elbow, elbows, shoulder, shoulders, wrist, wrists",
        "hand": "hand, hands, finger, fingers, palm, palms, knuckle, knuckles",
        "nail": "nail, nails, fingernail, fingernails, toenail, toenails",
        "groin or genitals": "groin, genital, genitals, genitalia, penis, scrotum, vulva",
        "buttock": "buttock, buttocks",
        "leg": "leg, legs, thigh, thighs, knee, knees, shin, shins, calf, calves, ankle, ankles",
        "foot": "foot, feet, toe, toes, sole, soles, heel, heels",
        "": "back of, back to",
    },
}
