from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.watch_activity_data import (
    EXERCISES,
    NEW_PEOPLE,
    PRETRAINING_PEOPLE,
    WINDOW,
    Recording,
    first_and_later,
    load_recordings,
    network,
    split,
    windows,
)
from trainlet.errors import DataError
from trainlet.ir import interpret


def stamped(person: int, label: int, length: int) -> Recording:
    """A signal whose samples say where they come from: person, exercise, time."""
    time = np.arange(length)
    columns = [np.full(length, person), np.full(length, label), time, time % 7, time % 5, time % 3]
    return Recording(np.stack(columns, 1).astype(np.float32), label, person, "left")


STAMPED = [stamped(person, label, 900 + 37 * label) for person in range(1, 5) for label in range(7)]


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    if importlib.util.find_spec("seglearn") is None:
        pytest.skip("needs seglearn")
    return load_recordings()


def test_windows_are_whole_and_one_hop_apart() -> None:
    found = windows(np.arange(20.0).reshape(10, 2), size=4, hop=3)
    assert found[:, 0, 0].tolist() == [0, 6, 12]
    assert found.shape == (3, 4, 2)
    assert windows(np.zeros((3, 2)), size=4).shape == (0, 4, 2)


@given(st.integers(1, 5000), st.integers(1, 300))
def test_adapting_ends_a_window_before_testing_begins(length: int, size: int) -> None:
    first, later = first_and_later(length, size)
    assert later.start - first.stop >= size
    assert first.start == 0
    assert later.stop == length


def test_no_sample_is_both_adapted_to_and_tested_on() -> None:
    parts = split(STAMPED, (1, 2), (3, 4))

    def samples(x: np.ndarray) -> set[tuple[int, ...]]:
        raw = np.rint(x * parts.std + parts.mean)[..., :3].astype(int)
        return {tuple(row) for row in raw.reshape(-1, 3)}

    seen = samples(parts.pretrain.x)
    assert {person for person, *_ in seen} == {1, 2}
    for person, part in parts.people.items():
        adapt, test = samples(part.adapt.x), samples(part.test.x)
        assert {p for p, *_ in adapt | test} == {person}
        assert not adapt & test
        for label in range(7):
            latest = max(time for _, exercise, time in adapt if exercise == label)
            earliest = min(time for _, exercise, time in test if exercise == label)
            assert earliest - latest > WINDOW


def test_normalisation_knows_the_pretraining_people_alone() -> None:
    loud = [Recording(1000 * r.signal, r.label, r.person, r.side) if r.person > 2 else r for r in STAMPED]
    assert np.array_equal(split(loud, (1, 2), (3, 4)).mean, split(STAMPED, (1, 2), (3, 4)).mean)
    assert np.array_equal(split(loud, (1, 2), (3, 4)).std, split(STAMPED, (1, 2), (3, 4)).std)


def test_people_on_both_sides_or_unknown_are_refused() -> None:
    with pytest.raises(DataError, match=r"people \[2\] are both"):
        split(STAMPED, (1, 2), (2, 3))
    with pytest.raises(DataError, match=r"no recordings of people \[9\]"):
        split(STAMPED, (1, 2), (9,))


def test_the_network_is_small_seeded_and_runs() -> None:
    graph = network(1)
    assert sum(t.value.size for t in graph.constants.values()) == 35_783
    assert network(1) == graph != network(2)
    x = np.random.default_rng(0).normal(size=(1, WINDOW, 6))
    logits = interpret(graph, {"x": x}).outputs[0]
    assert logits.shape == (1, len(EXERCISES))
    assert 0.01 < np.abs(logits).max() < 20


def test_every_new_person_does_every_exercise_before_and_after(recordings: list[Recording]) -> None:
    parts = split(recordings)
    assert len(recordings) == 140
    assert set(PRETRAINING_PEOPLE) | set(NEW_PEOPLE) == set(range(1, 11))
    np.testing.assert_allclose(parts.pretrain.x.mean((0, 1)), 0, atol=0.1)
    for person in NEW_PEOPLE:
        part = parts.people[person]
        assert set(part.adapt.label) == set(part.test.label) == set(range(7))
        assert np.isfinite(part.adapt.x).all()
        assert np.isfinite(part.test.x).all()
