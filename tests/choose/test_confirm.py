"""Which of several trained candidates is taken."""

from __future__ import annotations

import numpy as np

from trainlet.choose.confirm import Candidate, Confirmed, paired_error, preferred
from trainlet.scheme import UpdateScheme


def trained(name: str, ram_bytes: int, right: np.ndarray) -> Confirmed:
    return Confirmed(Candidate(name, UpdateScheme(name), ram_bytes), float(right.mean()), right, 0.1, 1.0)


def answers(wrong: range, count: int = 400) -> np.ndarray:
    right = np.ones(count, bool)
    right[list(wrong)] = False
    return right


def test_a_smaller_scheme_is_taken_where_the_larger_one_is_better_by_noise_only():
    large, small = trained("large", 200, answers(range(40))), trained("small", 100, answers(range(37, 79)))
    assert large.accuracy > small.accuracy
    assert preferred([large, small]).candidate.name == "small"


def test_a_clear_gain_is_worth_its_memory():
    large, small = trained("large", 200, answers(range(40))), trained("small", 100, answers(range(80)))
    assert preferred([small, large]).candidate.name == "large"


def test_training_less_wins_where_training_more_overfits():
    head, large = trained("head", 100, answers(range(40))), trained("large", 200, answers(range(60)))
    assert preferred([large, head]).candidate.name == "head"


def test_the_error_of_a_difference_counts_only_samples_on_which_they_differ():
    a, b = trained("a", 1, answers(range(40))), trained("b", 1, answers(range(40)))
    assert paired_error(a, b) == 0
    c = trained("c", 1, answers(range(20, 60)))
    assert np.isclose(paired_error(a, c), np.sqrt(40 / 400) / np.sqrt(400))
