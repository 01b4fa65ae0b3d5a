"""Estimated memory against the planner's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.choose.networks import SETTINGS, mobile_memory, mobile_space, random_choice
from tests.shared_files import shared
from trainlet import api
from trainlet.choose.memory import MemoryModel
from trainlet.choose.space import Choice, Space, space
from trainlet.scheme import analytic_bits, select


def planned(places: Space, settings: api.Settings, choice: Choice) -> int:
    scheme = places.scheme(choice, "random")
    return api.plan(places.graph, replace(settings, scheme=scheme), for_board=True).ram_bytes


def test_the_estimate_is_within_3_percent_of_the_plan():
    places, memory, rng = mobile_space(), mobile_memory(), np.random.default_rng(0)
    for _ in range(30):
        choice = random_choice(places, rng)
        want = planned(places, SETTINGS, choice)
        assert abs(memory.estimate(choice) - want) <= 0.03 * want, choice


def test_state_is_estimated_to_the_byte():
    places, memory, rng = mobile_space(), mobile_memory(), np.random.default_rng(1)
    for _ in range(5):
        choice = random_choice(places, rng)
        scheme = places.scheme(choice, "random")
        want = api.plan(places.graph, replace(SETTINGS, scheme=scheme)).bytes["state"]
        weights = sum(memory.weight_state(i, c) for i, c in enumerate(choice.counts) if c)
        assert memory.state(choice.biases) + weights == want


def test_the_analytic_price_is_that_of_the_scheme():
    places, rng = mobile_space(), np.random.default_rng(2)
    for _ in range(10):
        choice = random_choice(places, rng)
        selection = select(places.scheme(choice, "random"), places.graph)
        assert places.analytic_bits(choice) == analytic_bits(places.graph, selection)


def test_a_choice_survives_the_way_through_its_scheme():
    places, rng = mobile_space(), np.random.default_rng(3)
    for _ in range(10):
        choice = random_choice(places, rng)
        assert places.choice(places.scheme(choice, "random")) == choice


def test_probes_are_kept_in_a_file_and_read_back(tmp_path):
    choice = Choice(3, (*[0] * 9, 4))
    first = MemoryModel(mobile_space(), SETTINGS, True, tmp_path)
    want = first.estimate(choice)
    first.save()
    second = MemoryModel(mobile_space(), SETTINGS, True, tmp_path)
    assert second._stored and second.estimate(choice) == want
    other = MemoryModel(mobile_space(), replace(SETTINGS, batch=2), True, tmp_path)
    assert len(other._stored) == 1 < len(second._stored)  # of another batch: probed anew


@pytest.mark.shared
@pytest.mark.slow
def test_the_estimate_holds_on_a_reference_network():
    graph, _ = api.prepare(
        shared("reference/models/mcunet-5fps.json"), api.Settings("head", "nearest", classes=10)
    )
    places, settings = space(graph), api.Settings("head", "nearest")
    memory = MemoryModel(places, settings, True)
    counts = [0] * 42
    for i, count in ((21, 40), (24, 48), (27, 24), (31, 60), (39, 12)):
        counts[i] = count
    for choice in (Choice(22, tuple(counts)), Choice(24, places.nothing.counts)):
        want = planned(places, settings, choice)
        assert abs(memory.estimate(choice) - want) <= 0.03 * want
