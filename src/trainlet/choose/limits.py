"""What a choice may cost: rows that are linear in what is trained, one set for each number of biases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trainlet.choose.memory import MemoryModel
from trainlet.choose.space import Choice, Space


class Limit(Protocol):
    """A cost with an upper bound. `rows`: for the last k biases, what they cost by themselves and what is
    allowed,
    both (rows); `column`: what `count` channels of a layer add to each row, beside k biases."""

    def rows(self, k: int) -> tuple[np.ndarray, float]: ...
    def column(self, k: int, layer: int, count: int) -> np.ndarray: ...
    def allows(self, choice: Choice) -> bool: ...


@dataclass
class PlannedMemory:
    """RAM as the planner gives it, estimated: live bytes of every unit + state + scratch <= budget_bytes."""

    model: MemoryModel
    budget_bytes: float

    def rows(self, k: int) -> tuple[np.ndarray, float]:
        base = self.model.base(len(self.model.space.body) - k)
        live = np.append(base.live.reshape(-1), self.model.predict_bytes)
        return live + self.model.state(k) + base.scratch_bytes, self.budget_bytes

    def column(self, k: int, layer: int, count: int) -> np.ndarray:
        deepest = layer == len(self.model.space.body) - k
        live = np.append(self.model.added(layer, count, deepest), 0.0)
        return live + self.model.weight_state(layer, count)

    def allows(self, choice: Choice) -> bool:
        return self.model.estimate(choice) <= self.budget_bytes


@dataclass
class AnalyticMemory:
    """The published price (scheme/memory.py) in bits, exact."""

    space: Space
    budget_bytes: float

    def rows(self, k: int) -> tuple[np.ndarray, float]:
        bits = self.space.analytic_bits(Choice(k, self.space.nothing.counts))
        return np.array([bits], float), 8 * self.budget_bytes

    def column(self, k: int, layer: int, count: int) -> np.ndarray:
        return np.array([self.space.weight_bits(layer, count)], float)

    def allows(self, choice: Choice) -> bool:
        return self.space.analytic_bits(choice) <= 8 * self.budget_bytes


def allowed(limits: list[Limit], choice: Choice) -> bool:
    return all(limit.allows(choice) for limit in limits)
