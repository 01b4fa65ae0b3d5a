"""What a search maximises: the gain of a choice, added up over what was measured.

Each gain was measured beside the head alone, and what two of them repair overlaps: every layer would seem to
be worth most of what all of them are worth together. So they are added as if each repaired a share of the
errors that training can repair at all, independently of the others:

    gain(choice) = ceiling (1 - prod_i (1 - g_i / ceiling)),     units_i = -log(1 - g_i / ceiling)

The units are additive, which an integer program needs, and the gain grows with their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainlet.choose.contribution import Contributions
from trainlet.choose.space import Choice, Space

Objective = Callable[[Choice], float]
HEADROOM = 2.0  # times the largest gain of any one piece: what all of them can reach together
NEARLY = 0.999  # of the ceiling: no piece counts for more


@dataclass(frozen=True)
class Gains:
    """Additive units: `biases[k]` of the last k biases, `weight(i, count)` of channels of layer i.

    ceiling: accuracy that training can gain at all; None where units are gains themselves, added plainly.
    """

    biases: np.ndarray
    weight: Callable[[int, int], float]
    ceiling: float | None = None

    def __call__(self, choice: Choice) -> float:
        """The sum of units."""
        total = float(self.biases[choice.biases])
        return total + sum(self.weight(i, c) for i, c in enumerate(choice.counts) if c)

    def predicted(self, choice: Choice) -> float:
        """The gain in accuracy (0..1) over the head alone."""
        total = self(choice)
        return total if self.ceiling is None else self.ceiling * -float(np.expm1(-total))


MEASURED = -1.0  # the ceiling that an analysis suggests


def measured_gains(
    found: Contributions,
    space: Space,
    caution: float = 0.0,
    ceiling: float | None = MEASURED,
    redraw: bool = False,
) -> Gains:
    """The gains of an analysis; caution: how many standard errors of each are taken off (never below 0).

    With caution a gain that was not told from nothing counts as nothing, and the search trains less. ceiling
    None: plain sums (arXiv:2206.15472). redraw: channels are drawn anew every epoch, so all of them learn,
    each for a share of the time; that is taken to be worth the geometric mean of what the share and the whole
    are worth (an assumption, which the comparing trainings check).
    """
    n = len(space.body)
    ceiling = ceiling_of(found) if ceiling == MEASURED else ceiling
    biases = np.array([found.bias_gain(k) for k in range(n + 1)])
    for k in range(1, n + 1):
        if caution and k in found.biases:
            biases[k] = max(min(0.0, biases[k]), biases[k] - caution * found.biases[k].deviation)
    known: dict[tuple[int, int], float] = {}

    def weight(layer: int, count: int) -> float:
        if (layer, count) not in known:
            gain = _weight_gain(found, space, layer, count, caution)
            whole = space.body[layer].channels
            if redraw and count < whole and not space.body[layer].depthwise:
                all_ = _weight_gain(found, space, layer, whole, caution)
                gain = max(gain, float(np.sqrt(max(gain, 0.0) * max(all_, 0.0))))
            known[layer, count] = _units(gain, ceiling)
        return known[layer, count]

    return Gains(np.array([_units(g, ceiling) for g in biases]), weight, ceiling)


def ceiling_of(found: Contributions) -> float:
    """What can be gained at all: more than the largest single gain, no more than the head's errors."""
    largest = max((e.gain for e in (*found.biases.values(), *found.weights.values())), default=0.0)
    return float(min(max(HEADROOM * largest, 1e-3), max(1 - found.head_accuracy.gain, 1e-3)))


def _units(gain: float, ceiling: float | None) -> float:
    if ceiling is None:
        return gain
    return -float(np.log1p(-min(gain / ceiling, NEARLY)))


def _weight_gain(found: Contributions, space: Space, layer: int, count: int, caution: float) -> float:
    x = space.body[layer]
    name, share = x.weight.name, count / x.channels
    gain = found.gain(name, share)
    shares = found.shares(name)
    if not caution or not shares:
        return gain
    nearest = min(shares, key=lambda s: abs(np.log(s / share)))
    return max(min(0.0, gain), gain - caution * found.weights[name, nearest].deviation)
