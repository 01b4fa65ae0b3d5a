"""The fits are the nearest curves of their shape: compared with a search over many curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlet.choose.smooth import concave, rising, unimodal

X = np.array([0.125, 0.25, 0.5, 1.0])
values = st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array)
weights = st.lists(st.floats(0.1, 10), min_size=4, max_size=4).map(np.array)


@given(values, weights, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_no_concave_curve_is_nearer(y, weight, seed):
    fitted = concave(X, y, weight)
    slopes = np.diff([0, *fitted]) / np.diff([0, *X])
    assert (np.diff(slopes) <= 1e-9).all()
    cost = (weight * (y - fitted) ** 2).sum()
    rng = np.random.default_rng(seed)
    for scale in (0.003, 0.03, 0.3):  # other concave curves: slopes near the fitted ones, sorted
        other = np.sort(slopes + scale * rng.normal(size=(50, 4)), 1)[:, ::-1]
        curves = (other * np.diff([0, *X])).cumsum(1)
        assert ((weight * (y - curves) ** 2).sum(1) >= cost - 1e-9).all()


def test_a_concave_sequence_is_its_own_fit():
    y = np.array([0.1, 0.15, 0.2, 0.05])
    assert concave(X, y, np.ones(4)) == pytest.approx(y)


def test_rising_pools_what_falls():
    assert rising(np.array([1.0, 3, 2, 4]), np.ones(4)).tolist() == [1, 2.5, 2.5, 4]
    assert rising(np.array([1.0, 3, 2, 4]), np.array([1.0, 1, 3, 1])).tolist() == [1, 2.25, 2.25, 4]


@given(values, weights)
@settings(deadline=None, max_examples=25)
def test_unimodal_rises_then_falls_and_is_no_farther_than_rising(y, weight):
    fitted = unimodal(y, weight)
    peak = int(fitted.argmax())
    assert (np.diff(fitted[: peak + 1]) >= 0).all() and (np.diff(fitted[peak:]) <= 0).all()

    def cost(z):
        return (weight * (y - z) ** 2).sum()

    assert cost(fitted) <= min(cost(rising(y, weight)), cost(rising(y[::-1], weight[::-1])[::-1])) + 1e-12
