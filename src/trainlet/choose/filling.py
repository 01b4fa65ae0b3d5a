"""What is left of a budget, filled greedily: the most worth for its cost first, in an order with some noise.

Evolution makes thousands of choices; whether an option still fits is asked of all options at once, by the
linear rows of the limits. The greedy randomized construction of Feo and Resende (1995, GRASP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trainlet.choose.limits import BIASES, Limit, allowed, binding, joint_system
from trainlet.choose.space import Choice, Space

NOISE = (0.0, 0.2, 0.6)  # standard deviation of a worth's logarithm, one of these in each filling
LEAST = 1e-6  # of what is free: what an option costs at least, so that a free one is no division by zero


@dataclass(frozen=True)
class _Rows:
    """Options behind a first layer: `rows` of what they cost, of `slack`; scaled, so that it is 1 mostly."""

    options: list[tuple[int, int]]
    column: dict[tuple[int, int], int]
    layers: np.ndarray
    counts: np.ndarray
    worth: np.ndarray
    rows: np.ndarray
    slack: np.ndarray


@dataclass
class Filling:
    """Fills choices within `limits`. value: the objective; what an option is worth is what it adds alone."""

    space: Space
    limits: Sequence[Limit]
    options: Callable[[int], Sequence[int]]
    value: Callable[[Choice], float]
    rng: np.random.Generator
    noise: tuple[float, ...] = NOISE
    _rows: dict[int, _Rows] = field(default_factory=dict)
    _worth: dict[tuple[int, int], float] = field(default_factory=dict)

    def __call__(self, choice: Choice) -> Choice:
        """`choice` with more channels or biases behind its first layer, as long as any fit."""
        r = self._behind(choice.first())
        mine = [(i, c) for i, c in enumerate(choice.counts) if c]
        mine += [(BIASES, choice.biases)] if choice.biases else []
        if not r.options or any(option not in r.column for option in mine):
            return choice
        filled = self._filled(choice, r, [r.column[option] for option in mine])
        return filled if allowed(self.limits, filled) else choice

    def _filled(self, choice: Choice, r: _Rows, taken: list[int]) -> Choice:
        noise = self.rng.choice(self.noise) * self.rng.standard_normal(len(r.worth))
        worth, room = r.worth * np.exp(noise), r.slack - r.rows[:, taken].sum(1)
        cost, more, open_ = r.rows.copy(), worth.copy(), np.ones(len(worth), bool)

        def take(j: int) -> None:
            """From now on options of this layer are its larger ones, and count for what they add to it."""
            here = r.layers == r.layers[j]
            cost[:, here], more[here] = r.rows[:, here] - r.rows[:, [j]], worth[here] - worth[j]
            open_[here] = r.counts[here] > r.counts[j]

        for j in taken:
            take(j)
        while True:
            fits = open_ & (more > 0) & (cost <= room[:, None]).all(0)
            if not fits.any():
                return choice
            density = np.where(fits, more / np.maximum(cost.max(0, initial=0.0), LEAST), -np.inf)
            best = int(density.argmax())
            room = room - cost[:, best]
            take(best)
            choice = _with(choice, *r.options[best])

    def _behind(self, first: int) -> _Rows:
        if first not in self._rows:
            n = len(self.space.body)
            found = [(i, c) for i in range(first, n) for c in self.options(i)]
            found += [(BIASES, k) for k in range(1, n - first + 1)]
            rows, slack = joint_system(self.limits, first, found)
            if (slack < 0).any():
                found = []
            rows, slack = binding(rows[:, : len(found)], slack)
            layers, counts = np.array(found, int).reshape(-1, 2).T
            worth = np.array([self._alone(option) for option in found])
            column = {option: j for j, option in enumerate(found)}
            self._rows[first] = _Rows(found, column, layers, counts, worth, rows, slack)
        return self._rows[first]

    def _alone(self, option: tuple[int, int]) -> float:
        if option not in self._worth:
            nothing = self.space.nothing
            self._worth[option] = self.value(_with(nothing, *option)) - self.value(nothing)
        return self._worth[option]


def _with(choice: Choice, layer: int, count: int) -> Choice:
    if layer == BIASES:
        return replace(choice, biases=count)
    return replace(choice, counts=(*choice.counts[:layer], count, *choice.counts[layer + 1 :]))
