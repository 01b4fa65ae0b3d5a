"""Fixed-point rescaling against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlet.ir.fixed_point import multiplier_and_shift, multiply, real_factors, rescaling

FACTORS = st.floats(1e-9, 3.0)
SUMS = st.integers(-(2**28), 2**28)


@given(FACTORS)
def test_a_factor_keeps_31_bits(factor):
    multiplier, shift = multiplier_and_shift(factor)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) / Fraction(factor) - 1) <= Fraction(
        1, 2**30
    )


def test_factors_at_the_edges():
    assert multiplier_and_shift(0.0) == (0, 0)
    assert multiplier_and_shift(2.0**-40) == (0, 0)
    assert multiplier_and_shift(1.0) == (2**30, 1)
    assert multiplier_and_shift(1 - 2.0**-40) == (2**30, 1)


@given(SUMS, FACTORS)
def test_one_rounding_is_the_nearest_integer_ties_up(x, factor):
    multiplier, shift = multiplier_and_shift(factor)
    exact = Fraction(x * multiplier) * Fraction(2) ** (shift - 31)
    assert multiply(np.array([x]), multiplier, shift, once=True)[0] == floor(exact + Fraction(1, 2))


@given(SUMS, FACTORS)
def test_two_roundings_stay_within_one_unit(x, factor):
    multiplier, shift = multiplier_and_shift(factor)
    exact = Fraction(x * multiplier) * Fraction(2) ** (shift - 31)
    found = int(multiply(np.array([x]), multiplier, shift)[0])
    assert abs(found - exact) <= Fraction(1, 2) + Fraction(1, 2) * Fraction(2) ** min(shift, 0)


def test_the_second_rounding_is_away_from_zero():
    half = multiplier_and_shift(0.25)
    assert multiply(np.array([2, -2, 6, -6]), *half).tolist() == [1, -1, 2, -2]
    assert multiply(np.array([2, -2, 6, -6]), *half, once=True).tolist() == [1, 0, 2, -1]


def test_factors_come_back():
    factors = np.array([0.25, 1.5, 3e-5, 0.0])
    assert real_factors(rescaling(factors)) == pytest.approx(factors, rel=1e-6)
