"""Which trials are run: decided by records alone, spent on what is promising."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.choose.test_estimate import record
from trainlet.choose.contribution import Estimate, LayerInfo
from trainlet.choose.halving import Halving, promising
from trainlet.choose.task import AnalysisSettings
from trainlet.choose.trials import Run, Trial

ROWS, DEPTH = 4000, 24
LAYERS = [
    LayerInfo(i, i if i < DEPTH else None, f"w{i}", f"b{i}", "", "conv", 16, 64) for i in range(DEPTH + 1)
]
BEST_WEIGHT = "w19"


def truth(trial: Trial) -> float:
    """Biases gain 1 point each up to the tenth; one weight gains 4 points by its share, the others
    nothing."""
    weight = 0.04 * trial.share**0.5 if trial.weight == BEST_WEIGHT else 0.0
    return 0.7 + 0.01 * min(trial.biases, 10) + weight


def measured(run: Run) -> dict:
    """Common random numbers: the same rows are hard for every trial."""
    rows = np.random.default_rng(0).permutation(ROWS) / ROWS
    noise = np.random.default_rng(abs(hash((run.trial.biases, run.trial.share))) % 2**32)
    p = (truth(run.trial) - rows + 0.5 + noise.normal(0, 0.01, ROWS)).clip(0, 1)
    best = 0.04 if run.trial.biases or run.trial.weight else 0.1
    loss = abs(np.log(run.lr / best))
    rates = {"lr": run.lr, "asked_lr": run.lr, "diverged": run.lr > 0.5}
    return {**record(p > 0.5, p, run.seed, run.epochs), "loss": loss, **rates}


def analysis(settings: AnalysisSettings) -> tuple[Halving, Counter]:
    runs: Counter = Counter()

    def measure(phase, wanted):
        runs.update(r.key for r in wanted)
        return {r.key: measured(r) for r in wanted}

    return Halving(LAYERS, settings, ROWS, 10, measure), runs


def test_it_finds_the_rates_the_depth_and_the_weight_that_gain():
    halving, _ = analysis(AnalysisSettings(rungs=((1, 1), (4, 1)), keep=0.2))
    found = halving.all()
    assert found.head_lr == 0.1 and found.lr == pytest.approx(0.05)
    assert found.base_biases == 0 and set(found.bases.values()) == {0}
    assert found.biases[10].gain == pytest.approx(0.1, abs=0.01)
    assert found.weights[BEST_WEIGHT, 1.0].gain == pytest.approx(0.04, abs=0.01)
    assert found.weights[BEST_WEIGHT, 0.25].gain == pytest.approx(0.02, abs=0.01)
    assert max(found.weights, key=lambda k: found.weights[k].gain)[0] == BEST_WEIGHT


def test_it_looks_no_deeper_than_biases_gain():
    halving, _ = analysis(AnalysisSettings(rungs=((1, 1),)))
    found = halving.all()
    assert max(found.biases) < DEPTH and {w for w, _ in found.weights} <= {x.weight for x in LAYERS[-25:]}
    halving, _ = analysis(AnalysisSettings(rungs=((1, 1),), depth=DEPTH))
    assert max(halving.all().biases) == DEPTH


def test_only_the_promising_get_more_epochs_and_each_with_its_base():
    halving, runs = analysis(AnalysisSettings(rungs=((1, 1), (4, 1)), keep=0.2, depth=DEPTH))
    halving.all()
    short, long = (sum(f"epochs={e} " in key for key in runs) for e in (1, 4))
    assert long < 0.4 * short
    assert any(f"{BEST_WEIGHT}@1 epochs=4" in key for key in runs)
    for trial, epochs in halving.records:
        assert (halving.base_of(trial), epochs) in halving.records


def test_more_seeds_go_where_noise_leaves_the_sign_open():
    halving, runs = analysis(AnalysisSettings(rungs=((1, 1), (2, 1), (2, 2)), keep=0.5))
    halving.all()
    again = [key for key in runs if "seed=1" in key]
    assert again and not any(f"{BEST_WEIGHT}@1 " in key for key in again)


def test_decisions_follow_from_records_alone():
    once, twice = (analysis(AnalysisSettings(rungs=((1, 1), (3, 1)))) for _ in range(2))
    a, b = once[0].all(), twice[0].all()
    assert once[1] == twice[1] and a.weights == b.weights


def test_rates_and_base_that_are_given_are_not_searched():
    settings = replace(AnalysisSettings(rungs=((1, 1),)), lr=0.01, head_lr=0.3, base_biases=5)
    halving, runs = analysis(settings)
    found = halving.all()
    assert (found.lr, found.head_lr, found.base_biases) == (0.01, 0.3, 5)
    assert not any("epochs=0" in key for key in runs)


def test_what_loses_with_confidence_is_never_promising():
    gains = {
        Trial(1): Estimate(0.01, -0.01, 0.03, 1, 1),
        Trial(2): Estimate(-0.05, -0.07, -0.03, 1, 1),
        Trial(3): Estimate(0.02, 0.01, 0.03, 1, 1),
    }
    assert promising(gains, 1.0) == [Trial(1), Trial(3)]
    assert promising(gains, 0.3) == [Trial(1)]


def test_a_grouped_convolution_is_tried_whole_only():
    halving, runs = analysis(AnalysisSettings(rungs=((1, 1),), depth=DEPTH))
    halving.body = [replace(x, whole_only=x.weight == BEST_WEIGHT) for x in halving.body]
    found = halving.all()
    assert found.weights[BEST_WEIGHT, 1.0].gain == pytest.approx(0.04, abs=0.01)
    assert (BEST_WEIGHT, 0.5) not in found.weights and not any(f"{BEST_WEIGHT}@0" in key for key in runs)
