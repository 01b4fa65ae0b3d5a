"""Time of a step from its work."""

from __future__ import annotations

import numpy as np
import pytest

from tests.choose.networks import made_up_gains, mobile_memory, mobile_space, random_choice
from trainlet.choose.exact import solve
from trainlet.choose.search import Searcher
from trainlet.choose.space import Choice
from trainlet.choose.step_time import StepTime, calibrating_choices, features, non_negative

COST = np.array([2.0, 3e-6, 5e-6, 4e-6, 0.0])  # ms: a step, and a multiply-accumulate of each kind


def made_up_time(bound_ms: float) -> StepTime:
    return StepTime(mobile_memory(), COST, bound_ms, 0.0, ())


def test_work_adds_up_to_that_of_the_plan():
    searcher = Searcher(mobile_space(), made_up_gains(mobile_space()), mobile_memory())
    rng = np.random.default_rng(0)
    for _ in range(10):
        choice = random_choice(mobile_space(), rng)
        want = searcher.plan(choice).main.macs()["backward"]
        assert features(mobile_memory(), choice)[1:4].sum() == pytest.approx(want, rel=1e-9)


def test_costs_are_found_from_measured_steps_and_are_not_negative():
    memory, rng = mobile_memory(), np.random.default_rng(1)
    choices = calibrating_choices(mobile_space()) + [random_choice(mobile_space(), rng) for _ in range(6)]
    matrix = np.array([features(memory, c) for c in choices])
    found = non_negative(matrix, matrix @ COST)
    assert (found >= 0).all()
    np.testing.assert_allclose(matrix @ found, matrix @ COST, rtol=0.01)


def test_a_limit_on_time_is_kept_and_costs_gain():
    places, gains = mobile_space(), made_up_gains(mobile_space())
    free = made_up_time(1e9)
    everything = solve(places, gains, [free])
    bound = 0.5 * (free.milliseconds(Choice(0, places.nothing.counts)) + free.milliseconds(everything.choice))
    limited = solve(places, gains, [made_up_time(bound)])
    assert free.milliseconds(limited.choice) <= bound
    assert limited.value < everything.value


@pytest.mark.slow
def test_a_step_is_timed_on_this_machine_and_a_limit_below_the_head_is_refused():
    from trainlet.errors import BudgetError

    searcher = Searcher(mobile_space(), made_up_gains(mobile_space()), mobile_memory())
    found = StepTime.calibrated(searcher, None, 1e6)
    assert found.milliseconds(Choice(0, mobile_space().nothing.counts)) > 0
    with pytest.raises(BudgetError, match="the forward pass dominates it"):
        StepTime.calibrated(searcher, None, 1e-9)
