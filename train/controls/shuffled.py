"""Shuffled text: each image with the description of another, of any class or of its own.

Of any class, a description cannot help, and whatever gain is left comes from more parameters. Of its own class, it
tells the class as well as before and the image not at all: what is lost to that is what text says of the image.
"""

import numpy as np
import numpy.typing as npt

from train.controls.setting import Controlled, Setting, other_text, texts_of
from train.data import Rows, Split


def shuffled_text(setting: Setting) -> Controlled:
    """Texts exchanged within train, within validation and within test, by the seed."""
    return _shuffled(setting, np.zeros_like(setting.examples.labels))


def shuffled_text_within_class(setting: Setting) -> Controlled:
    """Texts exchanged among images of a class, within each split.

    For test rows this uses their labels, to build the control and for nothing else: a text drawn from the right class
    tells it. So it bounds from above what text could say of the class, and is no result that a user could have.
    """
    return _shuffled(setting, setting.examples.labels)


def _shuffled(setting: Setting, classes: npt.NDArray[np.int64]) -> Controlled:
    row_of = exchanged(setting.split, classes, setting.seed)
    return Controlled(setting.build(setting.image, setting.text), other_text(setting, texts_of(setting.inputs), row_of))


def exchanged(split: Split, classes: npt.NDArray[np.int64], seed: int) -> Rows:
    """For each row another of its split and class, each used once; itself where it is alone, or in no split."""
    row_of = np.arange(len(classes))
    rng = np.random.default_rng([seed, 1])
    for rows in (split.train, split.validation, split.test):
        for label in np.unique(classes[rows]):
            circle = rng.permutation(rows[classes[rows] == label])
            row_of[circle] = np.roll(circle, 1)  # the next one in a random circle: never oneself
    return row_of
