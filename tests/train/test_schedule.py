from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlet.train.schedule import learning_rate


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    rates = [learning_rate(s, 10, 50, 0.4, 5) for s in range(50)]
    assert rates == pytest.approx([0.4 * (s + 1) / 50 for s in range(50)])


def test_cosine_starts_at_the_peak_is_half_in_the_middle_and_ends_at_zero() -> None:
    assert learning_rate(50, 10, 55, 0.4, 5) == 0.4
    assert learning_rate(300, 10, 55, 0.4, 5) == pytest.approx(0.2)
    assert learning_rate(549, 10, 55, 0.4, 5) == pytest.approx(0.2 * (1 + math.cos(math.pi * 499 / 500)))
    assert learning_rate(550, 10, 55, 0.4, 5) == 0
    assert learning_rate(10**6, 10, 55, 0.4, 5) == 0


@given(st.integers(1, 50), st.integers(2, 60), st.floats(1e-4, 1))
def test_rate_never_rises_after_the_warm_up(steps: int, epochs: int, peak: float) -> None:
    rates = [learning_rate(s, steps, epochs, peak, 1) for s in range(steps * epochs)]
    assert max(rates) <= peak * (1 + 1e-12)
    assert all(a >= b for a, b in zip(rates[steps:], rates[steps + 1 :], strict=False))
    assert min(rates) > 0


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 3, 2, 1.0) == 1.0


def test_warm_up_may_be_a_part_of_an_epoch() -> None:
    assert learning_rate(0, 4, 1, 1.0, 0.5) == 0.5
    assert learning_rate(1, 4, 1, 1.0, 0.5) == 1.0


@pytest.mark.parametrize("wrong", [(-1, 10, 5, 1.0, 1), (0, 0, 5, 1.0, 1), (0, 10, 5, 1.0, 5)])
def test_runs_without_steps_are_refused(wrong: tuple[int, int, float, float, float]) -> None:
    with pytest.raises(ValueError, match="no rate for step"):
        learning_rate(*wrong)
