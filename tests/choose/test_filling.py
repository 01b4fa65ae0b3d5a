"""Rooms of a budget filled greedily: within the limits, nothing more fits, nothing is taken away."""

import numpy as np
import pytest

from tests.choose.networks import made_up_gains, mobile_memory, mobile_space
from trainlet.choose.filling import Filling
from trainlet.choose.greedy import reaching
from trainlet.choose.limits import AnalyticMemory, PlannedMemory
from trainlet.choose.space import Choice

BLOCKS = 3


def filling(part, kind="planned", noise=(0.0,), seed=0):
    places, memory = mobile_space(BLOCKS), mobile_memory(BLOCKS)
    everything = Choice(len(places.body), tuple(x.channels for x in places.body))
    if kind == "planned":
        low, high = memory.estimate(places.nothing), memory.estimate(everything)
        limit = PlannedMemory(memory, low + part * (high - low))
    else:
        low, high = (places.analytic_bits(c) / 8 for c in (places.nothing, everything))
        limit = AnalyticMemory(places, low + part * (high - low))
    gains = made_up_gains(places)
    return Filling(places, [limit], places.options, gains, np.random.default_rng(seed), noise), limit, gains


def starts(f, limit):
    n = len(f.space.body)
    return [c for first in range(n) for c in reaching(f.space, first, f.options) if limit.allows(c)]


@pytest.mark.parametrize("kind", ["planned", "analytic"])
@pytest.mark.parametrize("part", [0.1, 0.4, 0.8])
def test_filled_choices_fit_and_keep_what_they_had(part, kind):
    fill, limit, gains = filling(part, kind, noise=(0.5,))
    found = [(c, fill(c)) for c in starts(fill, limit)]
    assert any(a != b for a, b in found)
    for before, after in found:
        assert limit.allows(after) and gains(after) >= gains(before) - 1e-12
        assert after.biases >= before.biases and after.first() == before.first()
        assert all(b >= a for a, b in zip(before.counts, after.counts, strict=True))


def test_no_single_option_of_worth_fits_any_more():
    fill, limit, gains = filling(0.4, "analytic")
    filled = fill(starts(fill, limit)[0])
    for layer in range(filled.first(), len(filled.counts)):
        for count in fill.options(layer):
            if count > filled.counts[layer]:
                counts = (*filled.counts[:layer], count, *filled.counts[layer + 1 :])
                larger = Choice(filled.biases, counts)
                assert not limit.allows(larger) or gains(larger) <= gains(filled)


def test_the_same_seed_fills_alike_and_a_choice_with_unlisted_counts_stays():
    a, limit, _ = filling(0.4, noise=(0.5,), seed=3)
    b, _, _ = filling(0.4, noise=(0.5,), seed=3)
    assert [a(c) for c in starts(a, limit)] == [b(c) for c in starts(b, limit)]
    odd = Choice(0, (*a.space.nothing.counts[:-1], 1))
    assert 1 not in a.options(len(odd.counts) - 1) and a(odd) == odd
