"""Gains that overlap: added as shares of what can be repaired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.choose.made_up import analysis_of
from tests.choose.networks import SETTINGS, mobile_memory, mobile_space, random_choice
from tests.choose.tasks import dataset
from tests.host.programs import network
from trainlet import api
from trainlet.choose.gains import ceiling_of, measured_gains
from trainlet.choose.memory import MemoryModel
from trainlet.choose.search import Searcher
from trainlet.choose.space import Choice, space
from trainlet.choose.uniform import uniform

GRAPH = network("residual", True)
FOUND, PLACES = analysis_of(GRAPH, dataset(GRAPH)), space(GRAPH)
EVERYTHING = Choice(len(PLACES.body), tuple(x.channels for x in PLACES.body))


def alone(i: int, count: int) -> Choice:
    return Choice(0, tuple(count if j == i else 0 for j in range(len(PLACES.body))))


def test_one_piece_alone_is_predicted_to_gain_what_was_measured():
    gains = measured_gains(FOUND, PLACES)
    for i, x in enumerate(PLACES.body):
        measured = FOUND.gain(x.weight.name, 1.0)
        assert gains.predicted(alone(i, x.channels)) == pytest.approx(measured, abs=1e-9)
    assert gains.predicted(Choice(3, PLACES.nothing.counts)) == pytest.approx(FOUND.bias_gain(3), abs=1e-9)


def test_together_they_gain_less_than_their_sum_and_never_more_than_the_ceiling():
    gains, plain = measured_gains(FOUND, PLACES), measured_gains(FOUND, PLACES, ceiling=None)
    assert gains.predicted(EVERYTHING) < min(plain.predicted(EVERYTHING), ceiling_of(FOUND))
    largest = max(e.gain for e in (*FOUND.biases.values(), *FOUND.weights.values()))
    assert largest < ceiling_of(FOUND) <= 1 - FOUND.head_accuracy.gain


def test_redrawn_channels_are_worth_between_their_share_and_the_whole():
    fixed, redrawn = (measured_gains(FOUND, PLACES, redraw=r) for r in (False, True))
    compared = 0
    for i, x in enumerate(PLACES.body):
        for count in PLACES.options(i):
            low, high = fixed.predicted(alone(i, count)), fixed.predicted(alone(i, x.channels))
            assert low - 1e-12 <= redrawn.predicted(alone(i, count)) <= max(low, high) + 1e-12
            compared += redrawn.predicted(alone(i, count)) > low + 1e-9
    assert compared > 3


def test_a_redrawn_weight_is_planned_whole_and_the_estimate_knows():
    places, rng = mobile_space(), np.random.default_rng(5)
    memory = MemoryModel(places, SETTINGS, for_board=True, redraw=True)
    for _ in range(12):
        choice = random_choice(places, rng)
        scheme = places.scheme(choice, "random", redraw=True)
        want = api.plan(places.graph, replace(SETTINGS, scheme=scheme), for_board=True).ram_bytes
        assert abs(memory.estimate(choice) - want) <= 0.03 * want, choice
        partial = [c for x, c in zip(places.body, choice.counts) if 0 < c < x.channels and not x.depthwise]
        if partial:
            assert want > mobile_memory().estimate(choice)


def test_a_search_for_redrawn_channels_keeps_the_budget_and_says_so_in_the_scheme():
    places = mobile_space()
    memory = MemoryModel(places, SETTINGS, for_board=True, redraw=True)
    from tests.choose.networks import made_up_gains

    finder = Searcher(places, made_up_gains(places), memory)
    budget = finder.plan(places.nothing).ram_bytes + 4000
    found = finder.search(budget)
    assert found.ram_bytes == finder.plan(found.choice).ram_bytes <= budget
    partial = [
        x.weight.name
        for x, c in zip(places.body, found.choice.counts)
        if 0 < c < x.channels and not x.depthwise
    ]
    scheme = finder.scheme(found.choice)
    assert all(scheme.weights[name].redraw for name in partial)


def test_one_share_for_a_kind_is_the_largest_that_fits():
    graph = mobile_space().graph
    found, places = analysis_of(graph, dataset(GRAPH)), mobile_space()
    finder = Searcher(places, measured_gains(found, places), mobile_memory())
    least, shares = finder.cost(places.nothing, "analytic"), []
    for budget in (least, least + 400, least + 900, least + 10**6):
        choices = uniform(finder, found, budget, "analytic")
        assert len(choices) == (budget > least)
        for name, choice in choices.items():
            trained = [x for x, c in zip(places.body, choice.counts) if c]
            part = {x.part for x in found.layers if x.weight in [t.weight.name for t in trained]}
            assert part == {name.removeprefix("uniform ")} and choice.biases == 0
            assert finder.cost(choice, "analytic") <= budget
            ratio = {round(c / x.channels, 2) for x, c in zip(places.body, choice.counts) if c}
            assert max(ratio) - min(ratio) < 0.13  # whole channels
            shares.append(max(ratio))
    assert shares == sorted(shares) and shares[-1] == 1.0
