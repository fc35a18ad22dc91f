"""What a fusion's gain has to be held against: one file per idea. A new control is a function and a line."""

from collections.abc import Callable

from train.controls.fixed import constant_text, empty_text, random_text
from train.controls.masked import masked_text
from train.controls.matched import matched_image_only
from train.controls.second_image import second_image
from train.controls.setting import Controlled, Setting
from train.controls.shuffled import shuffled_text, shuffled_text_within_class

CONTROLS: dict[str, Callable[[Setting], Controlled]] = {
    # The text says nothing of the image.
    "shuffled_text": shuffled_text,
    "shuffled_text_within_class": shuffled_text_within_class,
    "empty_text": empty_text,
    "constant_text": constant_text,
    "random_text": random_text,
    # The text does not name the class.
    "masked_text": masked_text,
    # The same size without text.
    "second_image": second_image,
    "matched_image_only": matched_image_only,
}
