"""Records of runs -> gains with confidence.

Two runs that are compared have the same seeds, so the same head, the same order of samples and the same
validation rows (common random numbers): what is estimated is the mean over rows of a difference. Beside the
difference of right answers stands that of the probability given to the true class, which moves with it and
varies much less; the gain is a mixture of both in units of accuracy (`Scale`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.choose.contribution import Estimate
from trainlet.choose.trials import probability_of, right_of

Z90 = 1.6449  # of a 90% interval
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Rows' differences of two trials, averaged over seeds: right answers, probability of the true class."""

    right: np.ndarray
    probability: np.ndarray
    by_seed: np.ndarray  # (seeds, 2): means over rows, to see how much the seed matters
    epochs: float

    @property
    def seeds(self) -> int:
        return len(self.by_seed)


@dataclass(frozen=True)
class Scale:
    """How differences become gains: gain = share * right + (1 - share) * slope * probability.

    `slope`: accuracy per probability, over all trials. `share`: by inverse variance. `seed_variance`: of the
    gain of one seed beyond what rows explain.
    """

    slope: float = 1.0
    share: float = 1.0
    seed_variance: float = 0.0


def difference(of: Sequence[Record], over: Sequence[Record], rows: int) -> Difference:
    """Of the runs `of` one trial over the runs `over` another one, matched by seed."""
    base = {r["seed"]: r for r in over}
    pairs = [(r, base[r["seed"]]) for r in of if r["seed"] in base]
    right = np.stack([right_of(a, rows).astype(float) - right_of(b, rows) for a, b in pairs])
    probability = np.stack([probability_of(a) - probability_of(b) for a, b in pairs])
    by_seed = np.stack([right.mean(1), probability.mean(1)], 1)
    return Difference(right.mean(0), probability.mean(0), by_seed, float(of[0]["epochs"]))


def scale_of(found: Sequence[Difference]) -> Scale:
    """From all the differences of an analysis. With too few of them accuracy alone counts."""
    if len(found) < 4:
        return Scale()
    right, probability = (np.array([f(d).mean() for d in found]) for f in (_right, _probability))
    slope = float((right * probability).sum() / max((probability**2).sum(), 1e-12))
    slope = float(np.clip(slope, 0.25, 4.0))  # a probability is close to an accuracy: beyond this it is noise
    v_right = float(np.mean([_right(d).var() for d in found]))
    v_probability = slope**2 * float(np.mean([_probability(d).var() for d in found]))
    share = v_probability / max(v_right + v_probability, 1e-12)
    scale = Scale(slope, share)
    several = [d for d in found if d.seeds > 1]
    spread = [np.var(d.by_seed @ _mix(scale), ddof=1) for d in several]
    return Scale(slope, share, float(np.mean(spread)) if spread else 0.0)


def estimate(d: Difference, scale: Scale) -> Estimate:
    """The gain with its 90% interval (rows and seeds; normal approximation)."""
    rows = scale.share * d.right + (1 - scale.share) * scale.slope * d.probability
    deviation = float(np.sqrt(rows.var() / len(rows) + scale.seed_variance / d.seeds))
    gain = float(rows.mean())
    return Estimate(gain, gain - Z90 * deviation, gain + Z90 * deviation, d.seeds, d.epochs)


def accuracy(records: Sequence[Record], rows: int) -> Estimate:
    """The accuracy itself, mean over seeds."""
    right = np.stack([right_of(r, rows) for r in records]).mean(0)
    gain, deviation = float(right.mean()), float(right.std() / np.sqrt(rows))
    return Estimate(gain, gain - Z90 * deviation, gain + Z90 * deviation, len(records), records[0]["epochs"])


def carry(early: Mapping[Any, Estimate], late: Mapping[Any, Estimate]) -> dict[Any, Estimate]:
    """Gains after more epochs, of those that were stopped early too.

    Where both are known they give the line late = slope * early (no gain stays no gain) and what is left
    around it; an early gain is carried along that line and its interval widened by the rest. With fewer than
    four such it stays as it is, widened by half its size.
    """
    both = [k for k in early if k in late]
    result = dict(late)
    slope, rest = 1.0, None
    if len(both) >= 4:
        x, y = (np.array([side[k].gain for k in both]) for side in (early, late))
        slope = float(np.clip((x * y).sum() / max((x * x).sum(), 1e-12), 0.5, 3.0))
        rest = float(np.sqrt(((y - slope * x) ** 2).sum() / (len(both) - 1)))
    for k, e in early.items():
        if k not in result:
            gain = slope * e.gain
            spread = abs(e.gain) / 2 if rest is None else rest
            deviation = float(np.hypot(slope * e.deviation, spread))
            result[k] = Estimate(gain, gain - Z90 * deviation, gain + Z90 * deviation, e.seeds, e.epochs)
    return {k: result[k] for k in early} | {k: e for k, e in result.items() if k not in early}


def _right(d: Difference) -> np.ndarray:
    return d.right


def _probability(d: Difference) -> np.ndarray:
    return d.probability


def _mix(s: Scale) -> np.ndarray:
    return np.array([s.share, (1 - s.share) * s.slope])
