"""Which runs an analysis makes: a rate search, then successive halving over biases and over weights.

Every decision depends on finished records alone, and each round is complete before the next is decided, so
the same runs follow whatever the number of workers, their order, or interruptions.
(Successive halving: Jamieson and Talwalkar, arXiv:1502.07943.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainlet.choose.contribution import Estimate, LayerInfo
from trainlet.choose.estimate import Difference, Scale, accuracy, carry, difference, estimate, scale_of
from trainlet.choose.task import AnalysisSettings
from trainlet.choose.trials import Run, Trial

Measure = Callable[[str, Sequence[Run]], Mapping[str, dict[str, Any]]]
HEAD_RATE, BODY_RATE = 0.1, 0.0125  # where the searches begin, at batch 32
MOST_RATES = 6


@dataclass
class Measured:
    """What an analysis has found: rates, base, estimates; `scale` says how differences became gains."""

    lr: float
    head_lr: float
    base_biases: int
    head_accuracy: Estimate
    biases: dict[int, Estimate]
    weights: dict[tuple[str, float], Estimate]
    bases: dict[str, int]
    scale: Scale
    runs: int = 0
    cpu_seconds: float = 0.0
    kept: dict[str, list[str]] = field(default_factory=dict)


class Halving:
    """The rounds of one analysis. `measure(phase, runs)` returns their records by key."""

    def __init__(
        self, infos: Sequence[LayerInfo], s: AnalysisSettings, rows: int, classes: int, measure: Measure
    ) -> None:
        self.s, self.rows, self.classes, self._run = s, rows, classes, measure
        self.body = [x for x in infos if x.conv_index is not None]
        self.depth = len(self.body)
        self.records: dict[tuple[Trial, int], dict[int, dict[str, Any]]] = {}
        self.used: dict[str, float] = {}  # runs by key, and their processor seconds
        self.lr = self.head_lr = 0.0
        self.kept: dict[str, list[str]] = {}

    # ------------------------------------------------------------------ runs

    def go(self, phase: str, trials: Iterable[Trial], rung: int) -> None:
        """Measure trials at a rung, with all its seeds."""
        epochs, seeds = self.s.rungs[rung]
        runs = [
            Run(t, epochs, self.s.seed + i, self.lr, self.head_lr)
            for t in dict.fromkeys(trials)
            for i in range(seeds)
        ]
        found = self._measure(phase, runs)
        for run in runs:
            self.records.setdefault((run.trial, run.epochs), {})[run.seed] = found[run.key]

    def _measure(self, phase: str, runs: Sequence[Run]) -> Mapping[str, dict[str, Any]]:
        found = self._run(phase, runs)
        self.used |= {run.key: float(found[run.key].get("cpu_seconds", 0.0)) for run in runs}
        return found

    def base_of(self, trial: Trial) -> Trial:
        """What a trial's gain is measured over."""
        return Trial() if trial.weight is None else Trial(trial.biases)

    def differences(self, rung: int, trials: Iterable[Trial]) -> dict[Trial, Difference]:
        """Of all `trials` that have reached a rung's epochs, by the seeds they have."""
        epochs, found = self.s.rungs[rung][0], {}
        for t in trials:
            of, over = self.records.get((t, epochs)), self.records.get((self.base_of(t), epochs))
            if of and over:
                found[t] = difference(list(of.values()), list(over.values()), self.rows)
        return found

    def scale(self) -> Scale:
        every = {t for t, _ in self.records if t.biases}
        return scale_of(
            [d for rung in self._epochs() for d in self.differences(rung, sorted(every, key=str)).values()]
        )

    def _epochs(self) -> list[int]:
        """The first rung of each number of epochs."""
        return [i for i, (e, _) in enumerate(self.s.rungs) if e not in [r[0] for r in self.s.rungs[:i]]]

    def gains(self, trials: Sequence[Trial]) -> dict[Trial, Estimate]:
        """Each trial's gain at the last rung's epochs, carried there where it was stopped before."""
        scale = self.scale()
        result: dict[Trial, Estimate] = {}
        for rung in self._epochs():
            found = self._at_rung(rung, trials, scale)
            result = carry(result, found) if result else found
        return result

    def _at_rung(
        self, rung: int, trials: Sequence[Trial], scale: Scale | None = None
    ) -> dict[Trial, Estimate]:
        """Gains after a rung's epochs, of the trials that have reached it."""
        scale = scale or self.scale()
        return {t: estimate(d, scale) for t, d in self.differences(rung, trials).items()}

    # ------------------------------------------------------------------ rounds

    def rates(self) -> None:
        """The head's rate, by itself; then that of all trials.

        The latter with the last half of the biases, and each of two whole weights.
        """
        scale = self.s.batch / 32
        self.head_lr = self.s.head_lr or self._search(
            HEAD_RATE * scale, lambda lr: [Run(Trial(), 0, self.s.seed, lr, lr)]
        )
        middle, epochs = max(1, self.depth // 2), self.s.rungs[0][0]
        weights = dict.fromkeys(self.body[-max(1, middle * i // 3)].weight for i in (1, 2))
        base = min(self.s.base_biases, self.depth)
        anchors = [Trial(middle), *(Trial(base, w, max(self.s.shares)) for w in weights)]
        self.lr = self.s.lr or self._search(
            BODY_RATE * scale,
            lambda lr: [Run(t, epochs, self.s.seed, lr, self.head_lr) for t in anchors],
        )

    def _search(self, start: float, runs_at: Callable[[float], list[Run]]) -> float:
        """The rate of least mean validation loss of three a factor two apart, and on where an end is best."""
        tried: dict[float, float] = {}
        wanted = [start / 2, start, 2 * start]
        while wanted:
            found = self._measure("learning rate", [run for lr in wanted for run in runs_at(lr)])
            for lr in wanted:
                tried[lr] = float(np.mean([_loss(found[run.key]) for run in runs_at(lr)]))
            best = min(tried, key=lambda lr: (tried[lr], lr))
            inside = min(tried) < best < max(tried)
            at_end = [best / 2 if best == min(tried) else best * 2]
            wanted = [] if inside or len(tried) >= MOST_RATES else at_end
        return best

    def climb(self, name: str, first: Sequence[Trial]) -> None:
        """Rungs for trials that were measured at rung 0: the promising go on, each with its base."""
        alive = list(first)
        for rung in range(1, len(self.s.rungs)):
            gains = self.gains(alive)
            if (
                self.s.rungs[rung][0] == self.s.rungs[rung - 1][0]
            ):  # more seeds: where noise leaves the sign open
                alive = [t for t in alive if gains[t].low < 0 < gains[t].high]
            else:
                alive = promising(gains, self.s.keep)
            self.kept[f"{name}, rung {rung}"] = [str(t) for t in alive]
            self.go(f"{name}, rung {rung}", [*[self.base_of(t) for t in alive], *alive], rung)

    def biases(self) -> list[Trial]:
        """Counts of biases from the last on, as deep as `depth` says, or else in groups of an eighth of the
        network, until none of a group gains more than a standard error over the best before it. What lies
        deeper is not looked at."""
        trials: list[Trial] = []
        group = max(4, math.ceil(self.depth / 8))
        deepest = min(self.s.depth or self.depth, self.depth)
        while len(trials) < deepest:
            more = [Trial(k) for k in range(len(trials) + 1, min(len(trials) + group, deepest) + 1)]
            self.go("biases", [Trial(), *more], 0)
            gains = self._at_rung(0, [*trials, *more])
            best = max((gains[t] for t in more), key=lambda e: e.gain)
            rises = not trials or _above(best, max((gains[t] for t in trials), key=lambda e: e.gain))
            trials += more
            if self.s.depth is None and not rises:
                break
        self.climb("biases", trials)
        return trials

    def weights(self, base: int, body: Sequence[LayerInfo]) -> list[Trial]:
        """Of the layers `body`: first every weight whole, then the other shares of the promising half,
        then the rungs."""

        def trial(x: LayerInfo, share: float) -> Trial:
            return Trial(base, x.weight, share)

        largest = max(self.s.shares)
        whole = [trial(x, largest) for x in body if partial(x, largest)]
        self.go("whole weights", [*[self.base_of(t) for t in whole], *whole], 0)
        good = {t.weight for t in promising(self.gains(whole), 0.5)}
        parts = [
            trial(x, share) for x in body for share in self.s.shares
            if x.weight in good and share != largest and partial(x, share)
        ]  # fmt: skip
        self.go("shares of weights", parts, 0)
        self.climb("weights", [*whole, *parts])
        return [*whole, *parts]

    def all(self) -> Measured:
        """Every round."""
        self.rates()
        biases = self.biases()
        body = self.body[-len(biases) :]
        base = min(self.s.base_biases, self.depth)
        weights = self.weights(base, body)
        gain_of = {**self.gains(biases), **self.gains(weights)}
        last = max(e for t, e in self.records if t == Trial())
        return Measured(
            self.lr,
            self.head_lr,
            base,
            accuracy(list(self.records[Trial(), last].values()), self.rows),
            {t.biases: gain_of[t] for t in biases},
            self._with_shares(body, {(t.weight or "", t.share): gain_of[t] for t in weights}),
            {t.weight or "": t.biases for t in weights},
            self.scale(),
            len(self.used),
            sum(self.used.values()),
            self.kept,
        )

    def _with_shares(
        self, body: Sequence[LayerInfo], found: dict[tuple[str, float], Estimate]
    ) -> dict[tuple[str, float], Estimate]:
        """Shares of unpromising weights that were not run: in proportion to the gain of the whole, seeds
        0."""
        largest = max(self.s.shares)
        for x in body:
            if (x.weight, largest) not in found:
                continue
            e = found[x.weight, largest]
            for share in self.s.shares:
                if (x.weight, share) not in found and partial(x, share):
                    at = share / largest
                    found[x.weight, share] = Estimate(
                        at * e.gain, min(at * e.low, e.low), max(at * e.high, e.high), 0, e.epochs
                    )
        return dict(sorted(found.items(), key=lambda item: item[0]))


def _above(e: Estimate, other: Estimate) -> bool:
    """Whether a gain is larger by more than its standard error: the best of several is high by chance."""
    return e.gain > other.gain + e.deviation


def partial(x: LayerInfo, share: float) -> bool:
    """Whether a layer can be trained at a share of its channels."""
    return int(x.channels * share) > 0 and (share == 1 or not x.whole_only)


def _loss(record: Mapping[str, Any]) -> float:
    """Validation loss of a run at its rate; infinite where it diverged there."""
    if record["diverged"] or record["lr"] != record["asked_lr"] or record["loss"] is None:
        return math.inf
    return float(record["loss"])


def promising(gains: Mapping[Trial, Estimate], keep: float) -> list[Trial]:
    """The share of highest upper bounds, without those that lose with 95% confidence; in the given order."""
    open_ones = [t for t in gains if gains[t].high > 0]
    count = math.ceil(keep * len(gains))
    best = set(sorted(open_ones, key=lambda t: (-gains[t].high, str(t)))[:count])
    return [t for t in gains if t in best]
