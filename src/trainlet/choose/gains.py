"""What a search maximises: the gain of a choice, as a sum over what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainlet.choose.contribution import Contributions
from trainlet.choose.space import Choice, Space

Objective = Callable[[Choice], float]


@dataclass(frozen=True)
class Gains:
    """Additive gains in accuracy: `biases[k]` of the last k biases, `weight(i, count)` of channels of layer
    i.
    """

    biases: np.ndarray
    weight: Callable[[int, int], float]

    def __call__(self, choice: Choice) -> float:
        total = float(self.biases[choice.biases])
        return total + sum(self.weight(i, c) for i, c in enumerate(choice.counts) if c)


def measured_gains(found: Contributions, space: Space, caution: float = 0.0) -> Gains:
    """The gains of an analysis; caution: how many standard errors of each are taken off (never below 0).

    With caution a gain that was not told from nothing counts as nothing, and the search trains less.
    """
    n = len(space.body)
    biases = np.array([found.bias_gain(k) for k in range(n + 1)])
    for k in range(1, n + 1):
        if caution and k in found.biases:
            biases[k] = max(min(0.0, biases[k]), biases[k] - caution * found.biases[k].deviation)
    known: dict[tuple[int, int], float] = {}

    def weight(layer: int, count: int) -> float:
        if (layer, count) not in known:
            known[layer, count] = _weight_gain(found, space, layer, count, caution)
        return known[layer, count]

    return Gains(biases, weight)


def _weight_gain(found: Contributions, space: Space, layer: int, count: int, caution: float) -> float:
    x = space.body[layer]
    name, share = x.weight.name, count / x.channels
    gain = found.gain(name, share)
    shares = found.shares(name)
    if not caution or not shares:
        return gain
    nearest = min(shares, key=lambda s: abs(np.log(s / share)))
    return max(min(0.0, gain), gain - caution * found.weights[name, nearest].deviation)
