"""The exact search against brute force, evolution and freezing against the exact search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.choose.networks import made_up_gains, mobile_memory, mobile_space
from trainlet.choose.evolve import evolve
from trainlet.choose.exact import solve
from trainlet.choose.freeze import freeze
from trainlet.choose.gains import Gains
from trainlet.choose.greedy import greedy
from trainlet.choose.limits import AnalyticMemory, PlannedMemory
from trainlet.choose.space import Choice

SMALL = 1  # blocks: few enough choices to try all


def every_choice(places):
    n = len(places.body)
    for biases in range(n + 1):
        open_ = [(0, *places.options(i)) for i in range(n)]
        for counts in product(*open_):
            yield Choice(biases, counts)


def limits_of(kind, blocks, part):
    """A limit between what the head needs and what everything needs."""
    places, memory = mobile_space(blocks), mobile_memory(blocks)
    everything = Choice(len(places.body), tuple(x.channels for x in places.body))
    if kind == "planned":
        low, high = memory.estimate(places.nothing), memory.estimate(everything)
        return [PlannedMemory(memory, low + part * (high - low))]
    low, high = (places.analytic_bits(c) / 8 for c in (places.nothing, everything))
    return [AnalyticMemory(places, low + part * (high - low))]


@pytest.mark.parametrize("kind", ["planned", "analytic"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.4, 1.0])
def test_the_exact_search_finds_what_trying_everything_finds(kind, part):
    places, gains, limits = (
        mobile_space(SMALL),
        made_up_gains(mobile_space(SMALL)),
        limits_of(kind, SMALL, part),
    )
    best = max(gains(c) for c in every_choice(places) if limits[0].allows(c))
    found = solve(places, gains, limits)
    assert found.value == pytest.approx(best, abs=1e-6)
    assert limits[0].allows(found.choice)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6])
def test_scratch_that_one_weight_needs_counts_once(part, monkeypatch):
    places, gains, memory = mobile_space(SMALL), made_up_gains(mobile_space(SMALL)), mobile_memory(SMALL)
    real, more = memory.added, {0: 700, 2: 1500}

    def added(layer, count, first):
        kept, own, _ = real(layer, count, first)
        return kept, own, memory.base(first).scratch_bytes + more.get(layer, 0)

    monkeypatch.setattr(memory, "added", added)
    limit = limits_of("planned", SMALL, part)[0]
    best = max(gains(c) for c in every_choice(places) if limit.allows(c))
    found = solve(places, gains, [limit])
    assert found.value == pytest.approx(best, abs=1e-6)
    assert limit.allows(found.choice)


class CheaperWhenDeep(AnalyticMemory):
    """Passes that end in the second half of the network cost more: no planner is monotonic for sure."""

    def _penalty(self, first):
        return 0.0 if first < len(self.space.body) // 2 else 0.15 * self.budget_bytes

    def system(self, first, options):
        matrix, slack = super().system(first, options)
        return matrix, slack - 8 * self._penalty(first)

    def used(self, choice):
        return super().used(choice) + self._penalty(choice.first()) / self.budget_bytes

    def allows(self, choice):
        return self.used(choice) <= 1


def test_a_choice_that_is_cheap_only_as_part_of_a_deeper_pass_is_not_handed_out():
    places = mobile_space(SMALL)
    n = len(places.body)
    gains = Gains(np.zeros(n + 1), lambda i, count: (0.001 if i < n // 2 else 0.1) * count)
    late = Choice(0, tuple(x.channels if i >= n // 2 else 0 for i, x in enumerate(places.body)))
    limit = CheaperWhenDeep(places, places.analytic_bits(late) / 8 + 1)  # all of them, were they deep
    best = max(gains(c) for c in every_choice(places) if limit.allows(c))
    found = solve(places, gains, [limit])
    assert limit.allows(found.choice)
    assert found.value == pytest.approx(best, abs=1e-6)


def test_nothing_is_found_below_what_the_head_needs():
    limits = [PlannedMemory(mobile_memory(), 100)]
    assert solve(mobile_space(), made_up_gains(mobile_space()), limits) is None
    assert evolve(mobile_space(), made_up_gains(mobile_space()), limits) is None


def test_a_weight_that_does_harm_is_frozen_though_there_is_room():
    places = mobile_space()
    found = solve(places, made_up_gains(places), limits_of("planned", 3, 1.0))
    assert found.choice.counts[2] == 0 and found.choice.counts[3] > 0


def test_evolution_comes_within_one_percent_of_the_optimum():
    places, gains, limits = mobile_space(), made_up_gains(mobile_space()), limits_of("planned", 3, 0.3)
    optimum = solve(places, gains, limits).value
    assert evolve(places, gains, limits, evaluations=1500).value >= 0.99 * optimum


@pytest.mark.parametrize("kind", ["planned", "analytic"])
def test_greedy_choices_fit_and_are_a_good_start(kind):
    places, gains, limits = mobile_space(), made_up_gains(mobile_space()), limits_of(kind, 3, 0.3)
    optimum = solve(places, gains, limits).value
    found = greedy(places, gains, limits)
    assert all(limits[0].allows(c) for c in found)
    assert max(gains(c) for c in found) >= 0.9 * optimum
    assert evolve(places, gains, limits, evaluations=1000, start=found).value >= 0.99 * optimum


def test_evolution_is_the_same_again_with_the_same_seed():
    places, gains, limits = mobile_space(), made_up_gains(mobile_space()), limits_of("analytic", 3, 0.2)
    runs = [evolve(places, gains, limits, seed=s, evaluations=300) for s in (1, 1, 2)]
    assert runs[0] == runs[1] and runs[0].history != runs[2].history


def test_evolution_takes_objectives_that_are_no_sum():
    places, limits = mobile_space(), limits_of("analytic", 3, 0.5)

    def pairs(choice):  # only the two together are worth anything
        return 1.0 if choice.counts[4] and choice.counts[5] and not any(choice.counts[6:]) else 0.0

    assert evolve(places, pairs, limits, evaluations=2000).value == 1.0


def test_freezing_stops_before_the_threshold_is_missed():
    places, gains = mobile_space(), made_up_gains(mobile_space())
    found = freeze(places, gains, limits_of("planned", 3, 1.0), gains, 0.12)
    assert found.value >= 0.12
    values = [value for _, value in found.steps]
    assert values[-1] == found.value and len(values) > 2
    assert found.steps[1][0] == "0.dw/weight"  # layer 2 does harm: it goes first


def test_freezing_goes_on_below_the_threshold_until_the_memory_fits():
    places, gains, limits = mobile_space(), made_up_gains(mobile_space()), limits_of("planned", 3, 0.05)
    found = freeze(places, gains, limits, gains, 0.2)
    assert limits[0].allows(found.choice) and found.value < 0.2
