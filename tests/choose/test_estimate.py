"""Gains and their intervals, on records whose truth is known."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from trainlet.choose.contribution import Estimate
from trainlet.choose.estimate import Scale, carry, difference, estimate, scale_of

ROWS = 400


def record(right: np.ndarray, probability: np.ndarray, seed: int = 0, epochs: int = 1) -> dict:
    p = np.rint(probability.clip(0, 1) * 65535).astype("<u2")
    return {
        "seed": seed,
        "epochs": epochs,
        "right": base64.b64encode(np.packbits(right.astype(bool)).tobytes()).decode(),
        "probability": base64.b64encode(p.tobytes()).decode(),
    }


def trained(rng: np.random.Generator, gain: float) -> tuple[dict, dict]:
    """A base that is right on 70% of the rows, and a trial whose probabilities are higher by about `gain`."""
    base = rng.uniform(0.2, 1, ROWS)
    other = base + gain + rng.normal(0, 0.1, ROWS)
    return record(other > 0.44, other), record(base > 0.44, base)


def test_a_gain_is_the_mean_difference_and_no_difference_is_no_gain():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=ROWS)
    right = p > 0.5
    worse = right & (np.arange(ROWS) >= 40)
    d = difference([record(right, p)], [record(worse, p)], ROWS)
    assert estimate(d, Scale()).gain == pytest.approx((right.sum() - worse.sum()) / ROWS)
    same = estimate(difference([record(right, p)], [record(right, p)], ROWS), Scale())
    assert same.gain == 0 and same.low == 0 == same.high


def test_a_90_percent_interval_holds_the_truth_about_as_often():
    rng, truth, inside = np.random.default_rng(1), [], 0
    many = [trained(rng, 0.03) for _ in range(200)]
    pairs = [difference([a], [b], ROWS) for a, b in many]
    scale = scale_of(pairs)
    found = [estimate(d, scale) for d in pairs]
    truth = np.mean([e.gain for e in found])
    inside = sum(e.low <= truth <= e.high for e in found)
    assert 165 <= inside <= 195


def test_probabilities_make_intervals_narrower_and_agree_with_accuracy():
    rng = np.random.default_rng(2)
    pairs = [difference([a], [b], ROWS) for a, b in (trained(rng, g) for g in np.linspace(-0.05, 0.1, 40))]
    scale = scale_of(pairs)
    mixed, plain = ([estimate(d, s) for d in pairs] for s in (scale, Scale()))
    width = [np.mean([e.high - e.low for e in es]) for es in (mixed, plain)]
    assert width[0] < 0.7 * width[1]
    assert np.mean([e.gain for e in mixed]) == pytest.approx(np.mean([e.gain for e in plain]), abs=0.01)


def test_seeds_are_matched_and_averaged():
    p = np.full(ROWS, 0.5)
    ones, none = np.ones(ROWS, bool), np.zeros(ROWS, bool)
    over = [record(none, p, 1), record(none, p, 0)]
    d = difference([record(ones, p, 0), record(none, p, 1), record(ones, p, 2)], over, ROWS)
    assert d.seeds == 2 and d.right.mean() == 0.5


def sure(gain: float, epochs: int) -> Estimate:
    return Estimate(gain, gain - 0.001, gain + 0.001, 1, epochs)


def test_gains_of_stopped_trials_follow_those_that_went_on():
    early = {i: sure(0.01 * i, 1) for i in range(10)}
    late = {i: sure(0.02 * i, 4) for i in range(4, 10)}
    carried = carry(early, late)
    assert list(carried) == list(range(10)) and carried[7] == late[7]
    assert carried[2].gain == pytest.approx(0.04, abs=0.003) and carried[2].epochs == 1
    noisy = {i: sure(0.02 * i + (0.02 if i % 2 else -0.02), 4) for i in range(4, 10)}
    wide = carry(early, noisy)[2]
    assert wide.high - wide.low > 0.03 > carried[2].high - carried[2].low
