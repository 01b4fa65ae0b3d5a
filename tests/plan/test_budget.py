"""A memory budget is met by computing activations twice and by splitting the batch, or refused in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.host.programs import NETWORKS, samples
from trainlet.api import Settings, build, plan, within_budget
from trainlet.errors import BudgetError

FULL = Settings("full", batch=8)


def ram(settings: Settings) -> int:
    return plan(NETWORKS["residual"](), settings).ram_bytes


def test_a_batch_that_fits_stays_as_it_is() -> None:
    settings, choice = within_budget(NETWORKS["residual"](), replace(FULL, budget_bytes=ram(FULL)))
    assert choice is not None and (choice.calls, choice.recomputed) == (1, ())
    assert settings == replace(FULL, budget_bytes=ram(FULL))


def test_recomputation_comes_first_and_only_as_much_as_is_asked_for() -> None:
    most, least = ram(FULL), ram(replace(FULL, arena_target_bytes=0))
    counts = []
    for budget in (most - 1, least):
        _, choice = within_budget(NETWORKS["residual"](), replace(FULL, budget_bytes=budget))
        assert choice is not None and choice.calls == 1 and choice.ram_bytes <= budget
        assert choice.whole_bytes == most
        counts.append(len(choice.recomputed))
    assert 0 < counts[0] < counts[1]


def test_below_that_the_batch_is_split_into_equal_parts() -> None:
    budget = ram(replace(FULL, arena_target_bytes=0)) - 1
    settings, choice = within_budget(NETWORKS["residual"](), replace(FULL, budget_bytes=budget))
    assert choice is not None and choice.calls * choice.micro_batch == 8 and choice.calls > 1
    assert settings.accumulate and settings.batch == choice.micro_batch
    assert plan(NETWORKS["residual"](), settings).ram_bytes == choice.ram_bytes <= budget


def test_what_cannot_fit_is_refused_with_what_is_alive_at_the_peak() -> None:
    with pytest.raises(BudgetError, match=r"the budget is 512\. The peak is in"):
        within_budget(NETWORKS["residual"](), replace(FULL, budget_bytes=512))


def test_recomputation_keeps_the_bits_of_the_compiled_step() -> None:
    graph, rng = NETWORKS["residual"](), np.random.default_rng(1)
    hosts = [build(graph, s) for s in (FULL, replace(FULL, arena_target_bytes=0))]
    assert hosts[1].manifest["bytes"]["arena"] < hosts[0].manifest["bytes"]["arena"]
    x, y = samples(graph, 8), rng.integers(0, 5, 8).astype(np.int32)
    losses = [[h.step(x, y, 0.05) for _ in range(3)] for h in hosts]
    assert losses[0] == losses[1]
    assert all(np.array_equal(a, b) for a, b in zip(*(h.tensors().values() for h in hosts)))


def test_the_sum_over_parts_is_the_step_of_the_whole_batch() -> None:
    graph, rng = NETWORKS["residual"](), np.random.default_rng(1)
    whole, parts = build(graph, FULL), build(graph, replace(FULL, batch=2, accumulate=True))
    x, y = samples(graph, 8), rng.integers(0, 5, 8).astype(np.int32)
    loss = whole.step(x, y, 0.05)
    mean = np.mean([parts.accumulate(x[i : i + 2], y[i : i + 2]) for i in range(0, 8, 2)])
    parts.apply(0.05)
    assert mean == pytest.approx(loss, rel=1e-6)
    for name in whole.tensors():
        np.testing.assert_allclose(parts.tensor(name), whole.tensor(name), rtol=2e-5, atol=1e-6)


def test_a_network_that_normalises_over_its_batch_is_never_split() -> None:
    from tests.train.test_normalization import normalized

    graph = normalized()
    whole = plan(graph, FULL).ram_bytes
    for share in (0.9, 0.5, 0.2):
        try:
            _, choice = within_budget(graph, replace(FULL, budget_bytes=int(share * whole)))
        except BudgetError:
            continue
        assert choice is not None and choice.calls == 1
    with pytest.raises(BudgetError):
        within_budget(graph, replace(FULL, budget_bytes=int(0.1 * whole)))
