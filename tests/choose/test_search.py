"""A budget in, a scheme out that the planner confirms."""

from __future__ import annotations

import pytest

from tests.choose.networks import made_up_gains, mobile_memory, mobile_space
from trainlet.choose.search import Options, Searcher
from trainlet.errors import BudgetError, SchemeError


@pytest.fixture(scope="module")
def searcher():
    return Searcher(mobile_space(), made_up_gains(mobile_space()), mobile_memory())


def least(searcher):
    return searcher.plan(mobile_space().nothing).ram_bytes


@pytest.mark.parametrize("more", [0, 300, 2000, 7001, 20_000])
def test_the_plan_of_what_is_found_is_within_the_budget(searcher, more):
    budget = least(searcher) + more
    found = searcher.search(budget)
    assert found.ram_bytes == searcher.plan(found.choice).ram_bytes <= budget


def test_more_memory_never_gains_less(searcher):
    values = [searcher.search(least(searcher) + more).value for more in (0, 1000, 4000, 16_000, 64_000)]
    assert values == sorted(values) and values[0] < values[-1]


def test_refining_the_shares_gains_and_still_fits(searcher):
    budgets = [least(searcher) + more for more in (1500, 4000, 9000)]
    coarse = [searcher.search(b, Options(refine=False)).value for b in budgets]
    fine = [searcher.search(b) for b in budgets]
    assert all(f.value >= c and f.ram_bytes <= b for f, c, b in zip(fine, coarse, budgets))
    assert sum(f.value for f in fine) > sum(coarse)


def test_the_analytic_budget_is_that_of_the_publication(searcher):
    found = searcher.search(3000, Options(cost="analytic"))
    assert found.analytic_bytes <= 3000 < found.ram_bytes


def test_evolution_and_freezing_keep_the_budget_too(searcher):
    budget = least(searcher) + 5000
    for options in (Options("evolution", evaluations=300, seconds=3), Options("freeze", threshold=0.05)):
        assert searcher.search(budget, options).ram_bytes <= budget


def test_a_budget_below_the_least_says_the_least_and_what_dominates_it(searcher):
    needed = least(searcher)
    with pytest.raises(
        BudgetError, match=rf"{needed:,} bytes to train its head alone.*largest in the arena: "
    ):
        searcher.search(needed - 1)


def test_freezing_asks_for_its_threshold(searcher):
    with pytest.raises(SchemeError, match="threshold"):
        searcher.search(10**6, Options("freeze"))
