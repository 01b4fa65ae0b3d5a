from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainlet.data import Augment
from trainlet.data.augment import random_bits


def images(count: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 127, (count, 16, 24, 3)).astype(dtype)


@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_a_sample_is_augmented_alike_in_every_batch(seed: int, epoch: int) -> None:
    x, augment = images(10), Augment(seed)
    whole = augment(x, np.arange(10), epoch)
    order = np.random.default_rng(seed).permutation(10)[:4]
    assert (augment(x[order], order, epoch) == whole[order]).all()


def test_seed_epoch_and_index_change_it() -> None:
    x, at = images(1).repeat(32, 0), np.arange(32)
    base = Augment(0)(x, at, 0)
    for other in (Augment(1)(x, at, 0), Augment(0)(x, at, 1), Augment(0)(x, at + 32, 0)):
        assert (other != base).any((1, 2, 3)).mean() > 0.8


def test_half_is_flipped_and_every_shift_occurs() -> None:
    n = 4000
    flips, dy, dx = Augment(7)._draw(np.arange(n), 3, 16, 24)
    assert 0.45 < flips.mean() < 0.55
    assert sorted(set(dy.tolist())) == list(range(-2, 3))
    assert sorted(set(dx.tolist())) == list(range(-3, 4))
    assert np.bincount(dx + 3).min() > 0.8 * n / 7


def test_result_is_a_crop_of_the_padded_image() -> None:
    x = images(50, "int8")
    got = Augment(1)(x, np.arange(50), 0)
    assert got.dtype == np.int8
    for before, after in zip(x, got, strict=True):
        padded = np.pad(before, ((2, 2), (3, 3), (0, 0)), mode="edge")
        crops = [padded[i : i + 16, j : j + 24] for i in range(5) for j in range(7)]
        assert any((c == after).all() or (c[:, ::-1] == after).all() for c in crops)


def test_without_flip_and_shift_nothing_changes() -> None:
    x = images(5)
    assert (Augment(flip=False, shift=0)(x, np.arange(5), 2) == x).all()


def test_random_words_are_reproducible_everywhere() -> None:
    first = random_bits(0, 0, np.array([0]), 2)
    assert first.dtype == np.uint64
    assert random_bits(-1, 0, np.array([0]), 2).shape == (1, 2)
    assert len(np.unique(random_bits(0, 0, np.arange(1000), 3))) == 3000
    assert (random_bits(5, 2, np.array([7, 9]), 3)[1] == random_bits(5, 2, np.array([9]), 3)[0]).all()
