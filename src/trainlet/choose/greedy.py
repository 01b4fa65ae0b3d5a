"""Good choices in a moment, to begin an evolution with: for each depth the most worth for its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainlet.choose.filling import Filling
from trainlet.choose.gains import Objective
from trainlet.choose.limits import Limit, allowed
from trainlet.choose.space import Choice, Space


def greedy(space: Space, objective: Objective, limits: Sequence[Limit]) -> list[Choice]:
    """For each first layer, and each way to train something of it, the rest of the room filled behind it."""
    rng, n = np.random.default_rng(0), len(space.body)
    filled = Filling(space, limits, space.options, objective, rng, noise=(0.0,))
    starts = [c for first in range(n) for c in reaching(space, first, space.options)]
    found = [filled(c) for c in (space.nothing, *starts) if allowed(limits, c)]
    return list(dict.fromkeys(found))


def reaching(space: Space, first: int, options: Callable[[int], Sequence[int]]) -> list[Choice]:
    """Choices of one option each, of those that make a layer the first one trained."""
    zeros = space.nothing.counts
    weights = [Choice(0, (*zeros[:first], count, *zeros[first + 1 :])) for count in options(first)]
    return [*weights, Choice(len(zeros) - first, zeros)]
