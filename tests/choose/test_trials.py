"""A trial starts where its frozen prefix ends, and gives the same bits as the whole network would."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.choose.tasks import QUICK, task
from trainlet.choose.boundary import Boundaries
from trainlet.choose.trials import Run, Trial, Trials, probability_of, right_of

TIMES = ("seconds", "cpu_seconds")


def same(a: dict, b: dict) -> bool:
    return {k: v for k, v in a.items() if k not in TIMES} == {k: v for k, v in b.items() if k not in TIMES}


@pytest.mark.parametrize(
    "trial",
    [Trial(), Trial(1), Trial(3), Trial(4, "conv6/weight", 0.5), Trial(6, "conv4/weight"), Trial(8)],
    ids=str,
)
def test_a_trial_from_the_cut_has_the_bits_of_the_whole_network(tmp_path, trial):
    t = task()
    run = Run(trial, 1, 0, 0.02, 0.1)
    from_cut = Trials(t, tmp_path / "cuts")
    from_input = Trials(t, tmp_path / "none", limit_bytes=0)
    assert len(from_input.boundaries.used) == 1
    a, b = from_cut(run), from_input(run)
    assert same(a, b) and a["train_loss"] is not None


def test_activations_at_a_cut_do_not_depend_on_which_cuts_came_before(tmp_path):
    t = task()
    straight, chained = Boundaries(t, tmp_path / "a"), Boundaries(t, tmp_path / "b")
    last = len(straight.used) - 1
    direct = straight.samples(last)
    for i in range(1, last):
        chained.samples(i)
    for a, b in zip(direct, chained.samples(last)):
        np.testing.assert_array_equal(a.stored, b.stored)
    assert len(list((tmp_path / "a").glob("*.npy"))) == 1


def test_the_folder_of_activations_stays_within_its_limit(tmp_path):
    t = task()
    everything = Boundaries(t, tmp_path / "a")
    largest = sum(len(t.rows) * v.bytes for v in everything.used[1:])
    some = Boundaries(t, tmp_path / "b", largest // 2)
    assert 1 < len(some.used) < len(everything.used)
    for i in range(1, len(some.used)):
        some.samples(i)
    headers = 256 * len(some.used)
    assert sum(f.stat().st_size for f in (tmp_path / "b").glob("*.npy")) <= largest // 2 + headers


def test_equal_runs_give_equal_records_and_another_seed_does_not(tmp_path):
    trials = Trials(task(), tmp_path)
    run = Run(Trial(2), 1, 0, 0.02, 0.1)
    assert same(trials(run), trials(run))
    assert not same(trials(run), {**trials(Run(Trial(2), 1, 1, 0.02, 0.1)), "seed": 0, "run": run.key})


def test_a_record_holds_every_validation_row(tmp_path):
    t = task()
    record = Trials(t, tmp_path)(Run(Trial(3), 2, 0, 0.02, 0.1))
    right, p = right_of(record, len(t.validate)), probability_of(record)
    assert right.mean() == record["accuracy"] and len(p) == len(t.validate)
    assert -np.log(p.clip(1e-5)).mean() == pytest.approx(record["loss"], rel=0.02)
    assert right[p > 0.5].all()


def test_a_rate_that_diverges_is_halved_and_that_is_recorded(tmp_path):
    record = Trials(task(), tmp_path)(Run(Trial(8), 1, 0, 50.0, 0.1))
    assert record["asked_lr"] == 50.0 and record["lr"] == 50.0 / 8 and record["diverged"]


def test_validation_rows_are_training_rows_that_are_not_fitted():
    t = task()
    assert not set(t.fit) & set(t.validate) and len(t.rows) == len(t.data.y_train)
    counts = np.bincount(t.data.y_train[t.validate])
    assert set(counts) == {round(QUICK.validation_share * 24)} and math.isclose(
        t.validate.size, 35, abs_tol=1
    )
