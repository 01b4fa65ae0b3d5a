"""Good choices in a moment, to begin an evolution with: the most gain for what it costs, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainlet.choose.gains import Objective
from trainlet.choose.limits import Limit, allowed
from trainlet.choose.space import Choice, Space

DEPTHS = 12  # first layers that are tried, spread over the network
LEAST = 1e-6  # of a bound: what a step costs at least, so that a free one is no division by zero


def greedy(space: Space, objective: Objective, limits: Sequence[Limit]) -> list[Choice]:
    """A choice for each of a few depths: none of its weights lies before, and no further step fits."""
    n = len(space.body)
    depths = sorted({round(n * i / DEPTHS) for i in range(1, DEPTHS + 1)} - {0})
    return [_grown(space, objective, limits, n - depth) for depth in depths]


def _grown(space: Space, objective: Objective, limits: Sequence[Limit], first: int) -> Choice:
    choice = space.nothing
    while True:
        value, used = objective(choice), [limit.used(choice) for limit in limits]

        def worth(step: Choice, value: float = value, used: Sequence[float] = used) -> float:
            costs = [limit.used(step) - before for limit, before in zip(limits, used, strict=True)]
            return (objective(step) - value) / max(LEAST, *costs)

        better = [
            s for s in _steps(space, choice, first) if allowed(list(limits), s) and objective(s) > value
        ]
        if not better:
            return choice
        choice = max(better, key=worth)


def _steps(space: Space, choice: Choice, first: int) -> Iterator[Choice]:
    """One weight with the next more channels; one bias more, or those of an eighth of the layers."""
    n = len(choice.counts)
    for more in {1, max(1, n // 8)}:
        if choice.biases + more <= n - first:
            yield Choice(choice.biases + more, choice.counts)
    for i in range(first, n):
        larger = [c for c in space.options(i) if c > choice.counts[i]]
        if larger:
            yield Choice(choice.biases, (*choice.counts[:i], larger[0], *choice.counts[i + 1 :]))
