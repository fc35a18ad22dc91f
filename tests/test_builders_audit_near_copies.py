"""Near-copies by their pictures: the hash turns exactly, its search misses nothing, the correlation lets none in."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audit.hamming import MAX_CANDIDATES, pairs_within
from builders.audit.near_copies import blank_pictures, near_copies
from builders.audit.phash import SYMMETRIES, hashes, spectra, turn


def scenes(n, seed=0):
    """Smooth random pictures (n, 32, 32), as different from each other as photographs are."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 40, (n, 9, 9))
    place = np.linspace(0, 8, 32)
    low = np.clip(place.astype(int), 0, 7)
    weight = np.zeros((32, 9))
    weight[np.arange(32), low], weight[np.arange(32), low + 1] = 1 - (place - low), place - low
    return np.clip(128 + weight @ coarse @ weight.T + generator.normal(0, 3, (n, 32, 32)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda symmetry: symmetry.name)
def test_the_hash_of_a_turned_picture_is_known_without_turning_it(symmetry):
    pictures = scenes(50)
    turned = np.ascontiguousarray(turn(pictures.astype(np.float32), symmetry)).astype(np.uint8)
    bits_apart = np.bitwise_count(hashes(spectra(pictures), symmetry) ^ hashes(spectra(turned), SYMMETRIES[0]))
    assert bits_apart.max() <= 1  # rounding may turn the sign of a frequency that is hardly there


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda symmetry: symmetry.name)
def test_a_turned_picture_is_found_and_its_turn_is_named(symmetry):
    pictures = scenes(40)
    copy = turn(pictures[7:8].astype(np.float32), symmetry).astype(np.uint8)
    (pair,) = near_copies(np.concatenate([pictures, copy]))
    assert (pair.first, pair.second, pair.symmetry) == (7, 40, symmetry.name)
    assert pair.correlation > 0.999


@settings(deadline=None)
@given(seed=st.integers(0, 5), max_bits=st.integers(0, 11), n_table=st.integers(0, 80))
def test_the_search_finds_exactly_the_pairs_that_comparing_all_finds(seed, max_bits, n_table):
    generator = np.random.default_rng(seed)
    queries = generator.integers(0, 2**64, 60, dtype=np.uint64)
    queries[30:] = queries[:30] ^ (np.uint64(1) << generator.integers(0, 64, 30).astype(np.uint64))
    table = np.resize(queries[::-1], n_table) ^ np.uint64(0b1011 << 40)
    expected = np.argwhere(np.bitwise_count(queries[:, None] ^ table[None]) <= max_bits)
    np.testing.assert_array_equal(np.stack(pairs_within(queries, table, max_bits), axis=1), expected)


def test_more_candidates_than_are_compared_at_once_are_all_compared():
    same = np.full(1500, 12345, np.uint64)
    first, second = pairs_within(same, same, 0)
    assert MAX_CANDIDATES < 1500**2
    np.testing.assert_array_equal(first * 1500 + second, np.arange(1500**2))


def test_different_pictures_are_not_near_copies():
    assert near_copies(scenes(1500)) == []


def test_brightness_contrast_and_noise_do_not_hide_a_copy():
    pictures = scenes(30)
    changed = np.clip(pictures.astype(float) * 0.7 + 40 + np.random.default_rng(1).normal(0, 2, pictures.shape), 0, 255)
    found = near_copies(np.concatenate([pictures, changed.astype(np.uint8)]))
    assert {(pair.first, pair.second) for pair in found} == {(number, number + 30) for number in range(30)}


def test_pictures_that_show_nothing_are_blank_and_copies_of_nothing():
    generator = np.random.default_rng(0)
    grey = np.clip(generator.normal(90, 0.5, (20, 32, 32)), 0, 255).astype(np.uint8)
    pictures = np.concatenate([grey, scenes(5)])
    assert blank_pictures(pictures).tolist() == [True] * 20 + [False] * 5
    assert near_copies(pictures) == []


def test_no_picture_and_one_picture_have_no_copies():
    assert near_copies(scenes(0)) == near_copies(scenes(1)) == []


@pytest.mark.slow  # a clock
def test_the_search_does_not_grow_with_the_square():
    def seconds(n):
        pictures = scenes(n)
        began = time.process_time()
        near_copies(pictures)
        return time.process_time() - began

    small = min(seconds(3000) for _ in range(3))
    assert min(seconds(24000) for _ in range(2)) < 8 * 2.5 * small  # the square would be 64 times
