"""train/augmentation.py and train/chance.py: whatever is random is a function of seed, epoch and row."""

import numpy as np
import torch

from train.augmentation import augment
from train.chance import seed_of, uniform


def images(n, height_px=16, width_px=24):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, height_px, width_px, 3), dtype=np.uint8))


def test_augmentation_is_a_function_of_seed_epoch_and_row_alone():
    pixels, rows = images(4), np.array([10, 11, 12, 13])
    together = augment(pixels, rows, 3, 5)
    backwards = augment(pixels.flip(0), rows[::-1].copy(), 3, 5).flip(0)
    alone = torch.cat([augment(pixels[i : i + 1], rows[i : i + 1], 3, 5) for i in range(4)])
    assert torch.equal(together, backwards)
    assert torch.equal(together, alone)
    assert not torch.equal(together, augment(pixels, rows, 3, 6))
    assert not torch.equal(together, augment(pixels, rows, 4, 5))


def test_an_augmented_image_is_the_image_flipped_or_not_and_shifted_by_up_to_an_eighth():
    """Against a slow computation that tries every flip and shift."""
    pixels, rows = images(40), np.arange(40)
    augmented = augment(pixels, rows, 0, 0)
    found = []
    for before, after in zip(pixels.numpy(), augmented.numpy(), strict=True):
        padded = {flip: np.pad(before[:, ::flip], ((2, 2), (3, 3), (0, 0)), mode="edge") for flip in (1, -1)}
        found += [
            (flip, down, right)
            for flip in (1, -1)
            for down in range(-2, 3)
            for right in range(-3, 4)
            # a flip comes after the shift: to the left, then
            if np.array_equal(padded[flip][2 - down : 18 - down, 3 - right * flip : 27 - right * flip], after)
        ]
    assert len(found) == 40
    for position, values in enumerate(({1, -1}, set(range(-2, 3)), set(range(-3, 4)))):
        assert {each[position] for each in found} == values


def test_draws_are_uniform_and_do_not_depend_on_each_other():
    draws = uniform(np.arange(20_000), 3, 7, 1)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(
        np.quantile(draws, np.linspace(0.1, 0.9, 9), axis=0).T, [np.linspace(0.1, 0.9, 9)] * 3, atol=0.02
    )
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:, 0], uniform(np.arange(20_000), 1, 7, 2)[:, 0])[0, 1]) < 0.03


def test_seeds_differ_for_keys_in_another_order():
    keys = [(a, b, c) for a in range(6) for b in range(6) for c in range(-1, 5)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(1, 2) == seed_of(1, 2)
