"""Evolution, for objectives that are no sum: mutate, cross, keep the best. Deterministic by seed.

The method of Lin et al. (arXiv:2206.15472, section 3.2) and of PockEngine (arXiv:2310.17752), with a cost
model in place of a table of measured memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainlet.choose.filling import Filling
from trainlet.choose.gains import Objective
from trainlet.choose.greedy import reaching
from trainlet.choose.limits import Limit, allowed
from trainlet.choose.space import Choice, Space

STALE = 25  # generations without a better choice after which a new population is drawn
IDLE = 60  # generations without any choice that was not met before end the search
Options = Callable[[int], Sequence[int]]


@dataclass(frozen=True)
class Evolved:
    """The best choice met, its value, how many were evaluated, and the best value after each generation."""

    choice: Choice
    value: float
    evaluations: int
    history: tuple[float, ...]


def evolve(
    space: Space,
    objective: Objective,
    limits: list[Limit],
    options: Options | None = None,
    *,
    seed: int = 0,
    population: int = 48,
    evaluations: int = 20_000,
    seconds: float | None = None,
    start: Sequence[Choice] = (),
) -> Evolved | None:
    """The best of `evaluations` choices within the limits; None where not even the head fits.

    seconds: stop earlier (the result then depends on the machine's speed as well). start: choices to begin
    with.
    """
    run = _Run(space, objective, limits, options or space.options, np.random.default_rng(seed))
    pool = [c for c in (space.nothing, *start) if allowed(limits, c)]
    if not pool:
        return None
    began, history = time.perf_counter(), []
    best = max(pool, key=run.value)
    while not run.over(evaluations, began, seconds):
        pool = _best(run, [*start_of(pool, best), *(run.random() for _ in range(population))], population)
        stale = 0
        while stale < STALE and not run.over(evaluations, began, seconds):
            top, known = run.value(pool[0]), len(run.values)
            pool = _best(run, pool + [run.child(pool) for _ in range(population)], population)
            stale = 0 if run.value(pool[0]) > top else stale + 1
            history.append(max(run.value(pool[0]), run.value(best)))
            run.idle = run.idle + 1 if len(run.values) == known else 0
        best = max(best, pool[0], key=run.value)
        pool = []
    return Evolved(best, run.value(best), len(run.values), tuple(history))


def start_of(pool: list[Choice], best: Choice) -> list[Choice]:
    """The first population has the given choices in it; later ones begin anew, away from the best one
    known.
    """
    return [best, *pool] if pool else []


def _best(run: _Run, pool: Sequence[Choice], count: int) -> list[Choice]:
    """The `count` best, each once; of equals the one met first."""
    return sorted(dict.fromkeys(pool), key=lambda c: -run.value(c))[:count]


@dataclass
class _Run:
    space: Space
    objective: Objective
    limits: list[Limit]
    options: Options
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.values: dict[Choice, float] = {}
        self.idle = 0
        self.filled = Filling(self.space, self.limits, self.options, self.value, self.rng)

    def over(self, evaluations: int, began: float, seconds: float | None) -> bool:
        late = seconds is not None and time.perf_counter() - began > seconds
        return late or len(self.values) >= evaluations or self.idle > IDLE

    def value(self, choice: Choice) -> float:
        if choice not in self.values:
            self.values[choice] = self.objective(choice)
        return self.values[choice]

    def random(self) -> Choice:
        """Something of a first layer with the rest of the room filled; or whatever, as far as it fits."""
        n = len(self.space.body)
        if self.rng.random() < 0.5:
            starts = reaching(self.space, int(self.rng.integers(n)), self.options)
            choice = starts[int(self.rng.integers(len(starts)))]
            return self.filled(self.repaired(choice.biases, choice.counts))
        biases = int(self.rng.integers(0, n + 1))
        trained = self.rng.random(n) < self.rng.choice([0.1, 0.3, 0.6])
        counts = [self._option(i) if trained[i] else 0 for i in range(n)]
        return self.repaired(biases, counts)

    def child(self, pool: Sequence[Choice]) -> Choice:
        """Two parents crossed (or one kept), then a few genes changed."""
        a, b = (pool[int(min(self.rng.integers(len(pool), size=2)))] for _ in range(2))
        take = self.rng.random(len(a.counts)) < 0.5
        crossed = self.rng.random() < 0.5
        counts = [x if t or not crossed else y for x, y, t in zip(a.counts, b.counts, take, strict=True)]
        biases = a.biases if not crossed or self.rng.random() < 0.5 else b.biases
        for _ in range(int(self.rng.geometric(0.5))):
            if self.rng.random() < 0.2:
                biases = int(np.clip(biases + self.rng.integers(-3, 4), 0, len(counts)))
            else:
                self._mutate(counts)
        if self.rng.random() < 0.4:
            self._ruin(counts)
            return self.filled(self.repaired(biases, counts))
        choice = self.repaired(biases, counts)
        kind = self.rng.random()
        if kind < 0.3:
            return self.filled(choice)
        return self._grown(choice) if kind < 0.4 else choice

    def _ruin(self, counts: list[int]) -> None:
        """Freezes a few of the trained weights, or up to half, for others to take their room (ruin and
        recreate).
        """
        trained = [i for i, c in enumerate(counts) if c]
        most = max(4, len(trained) // 2) if self.rng.random() < 0.5 else 4
        for i in self.rng.permutation(trained)[: int(self.rng.integers(1, most))]:
            counts[int(i)] = 0

    def _grown(self, choice: Choice) -> Choice:
        """Weights that are larger by one or more steps wherever they still fit, in random order: what is left
        of a budget is worth something in every good choice.
        """
        n = len(choice.counts)
        for i in self.rng.permutation(np.arange(choice.first(), n)):
            larger = [c for c in self.options(int(i)) if c > choice.counts[i]]
            for count in larger[:: -1 if self.rng.random() < 0.5 else 1]:
                counts = (*choice.counts[:i], count, *choice.counts[i + 1 :])
                grown = Choice(choice.biases, counts)
                if allowed(self.limits, grown):
                    choice = grown
                    break
        return choice

    def _mutate(self, counts: list[int]) -> None:
        """One weight is trained, frozen, or gets the next more or fewer channels; or two of them change
        places.
        """
        i = int(self.rng.integers(len(counts)))
        steps = [0, *self.options(i)]
        at = steps.index(counts[i]) if counts[i] in steps else 0
        kind = self.rng.random()
        if kind < 0.6:
            counts[i] = steps[int(np.clip(at + self.rng.choice([-1, 1]), 0, len(steps) - 1))]
        elif kind < 0.8:
            counts[i] = 0 if counts[i] else self._option(i)
        else:
            j = int(self.rng.integers(len(counts)))
            counts[i], counts[j] = 0, self._option(j)

    def _option(self, layer: int) -> int:
        found = self.options(layer)
        return int(found[int(self.rng.integers(len(found)))]) if found else 0

    def repaired(self, biases: int, counts: Sequence[int]) -> Choice:
        """Within the limits: what is trained first of all is frozen, or a weight or a bias at random."""
        kept = list(counts)
        while not allowed(self.limits, choice := Choice(biases, tuple(kept))):
            trained = [i for i, c in enumerate(kept) if c]
            at = self.rng.random()
            if trained and (at < 0.6 or not biases):
                i = trained[0] if at < 0.2 else int(self.rng.choice(trained))
                smaller = [c for c in self.options(i) if c < kept[i]]
                kept[i] = smaller[-1] if smaller and self.rng.random() < 0.5 else 0
            elif biases:
                biases = biases - 1 if at < 0.9 else 0
            else:
                return choice
        return choice
