"""Masked text: descriptions in which the names of the classes, and what else they are called, are replaced.

What is lost to it is what a describing model diagnosed rather than described.
"""

import numpy as np

from builders.class_terms import MASK, class_terms, mask_terms
from train.controls.fixed import encoded
from train.controls.setting import Controlled, Setting, other_text
from train.progress import say


def masked_text(setting: Setting) -> Controlled:
    """The run's own descriptions, their class names masked; how many were is told."""
    terms = class_terms(setting.examples.class_names)
    masked = [mask_terms(text, terms) for text in setting.examples.texts]
    n_changed = sum(n > 0 for _, n in masked)
    say(setting.console, f"{n_changed} of {len(masked)} descriptions name a class; each name became '{MASK}'")
    texts = encoded(setting, [text for text, _ in masked])
    return Controlled(setting.build(setting.image, setting.text), other_text(setting, texts, np.arange(len(masked))))
