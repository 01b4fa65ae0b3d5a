"""What a choice may cost: rows that are linear in what is trained, one set for each depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trainlet.choose.memory import MemoryModel
from trainlet.choose.space import Choice, Space

Taken = Sequence[tuple[int, int]]
BIASES = -1  # in place of a layer: the last `count` biases


class Limit(Protocol):
    """A cost with an upper bound, linear in which options are taken of those that lie behind a first layer.

    system(first, options): matrix (rows, options) and slack (rows); what is taken must satisfy
    matrix x <= slack. An option is a layer with a count of channels, or BIASES with how many. used: cost over
    bound.
    """

    def system(self, first: int, options: Taken) -> tuple[np.ndarray, np.ndarray]: ...
    def used(self, choice: Choice) -> float: ...
    def allows(self, choice: Choice) -> bool: ...


@dataclass
class PlannedMemory:
    """RAM as the planner gives it, estimated: live bytes of every unit + state + scratch <= budget_bytes."""

    model: MemoryModel
    budget_bytes: float

    def system(self, first: int, options: Taken) -> tuple[np.ndarray, np.ndarray]:
        """A row for each unit, and where a weight takes more in its own step, one more for that weight; all
        once more for each weight whose kernels need more scratch.
        """
        base = self.model.base(first)
        live = np.append(base.live.reshape(-1), self.model.predict_bytes)
        slack = self.budget_bytes - live - self.model.state(0) - base.scratch_bytes
        if not options:
            return np.zeros((len(slack), 0)), slack
        nothing = np.zeros(len(live) - 1)
        alone = (nothing, nothing, 0)
        added = [alone if i == BIASES else self.model.added(i, c, first) for i, c in options]
        state = np.array([self._state(i, c) for i, c in options], float)
        kept = np.array([np.append(k_, 0.0) for k_, _, _ in added]).T + state
        extra = np.array([np.append(e, 0.0) for _, e, _ in added]).T
        layers = np.array([i for i, _ in options])
        rows, bounds = [kept], [slack]
        for layer in np.unique(layers):
            own = np.where(layers == layer, extra, 0.0)
            at = own.any(1)
            rows.append(kept[at] + own[at])
            bounds.append(slack[at])
        # Scratch is the largest that anything taken needs.
        more = np.maximum(0.0, [scratch - base.scratch_bytes for _, _, scratch in added])
        needing = [np.where(layers == i, more, 0.0) for i in np.unique(layers[more > 0])]
        every, slacks = np.concatenate(rows), np.concatenate(bounds)
        return np.concatenate([every, *(every + x for x in needing)]), np.tile(slacks, 1 + len(needing))

    def _state(self, layer: int, count: int) -> int:
        if layer == BIASES:
            return self.model.state(count) - self.model.state(0)
        return self.model.weight_state(layer, count)

    def used(self, choice: Choice) -> float:
        return self.model.estimate(choice) / self.budget_bytes

    def allows(self, choice: Choice) -> bool:
        return self.model.estimate(choice) <= self.budget_bytes


@dataclass
class AnalyticMemory:
    """The published price (scheme/memory.py) in bits, exact."""

    space: Space
    budget_bytes: float

    def system(self, first: int, options: Taken) -> tuple[np.ndarray, np.ndarray]:
        bits = self.space.analytic_bits(self.space.nothing)
        taken = np.array([[self._bits(i, c, bits) for i, c in options]], float)
        return taken.reshape(1, len(options)), np.array([8.0 * self.budget_bytes - bits])

    def _bits(self, layer: int, count: int, least: int) -> int:
        if layer == BIASES:
            return self.space.analytic_bits(Choice(count, self.space.nothing.counts)) - least
        return self.space.weight_bits(layer, count)

    def used(self, choice: Choice) -> float:
        return self.space.analytic_bits(choice) / (8 * self.budget_bytes)

    def allows(self, choice: Choice) -> bool:
        return self.space.analytic_bits(choice) <= 8 * self.budget_bytes


def allowed(limits: Sequence[Limit], choice: Choice) -> bool:
    return all(limit.allows(choice) for limit in limits)


def joint_system(limits: Sequence[Limit], first: int, options: Taken) -> tuple[np.ndarray, np.ndarray]:
    """The rows and slacks of all limits, one below the other."""
    systems = [limit.system(first, options) for limit in limits]
    return np.concatenate([m for m, _ in systems]), np.concatenate([b for _, b in systems])


def binding(rows: np.ndarray, slack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without rows that hold whatever is taken, or that another one implies; scaled to a slack of 1."""
    tight = np.maximum(rows, 0).sum(1) > slack
    rows, slack = rows[tight], slack[tight]
    kept: list[int] = []
    for i in np.argsort(slack, kind="stable"):
        if not any((rows[j] >= rows[i]).all() for j in kept):
            kept.append(int(i))
    scale = np.maximum(slack[kept], 1.0)
    return rows[kept] / scale[:, None], slack[kept] / scale
