"""What a user who waits is told."""

from __future__ import annotations

from trainlet.choose.analyze import AnalysisProgress
from trainlet.choose.progress import lines


def said(*events: tuple[float, AnalysisProgress]) -> list[str]:
    now, found = [0.0], []
    watch = lines(found.append, lambda: now[0])
    for at, event in events:
        now[0] = at
        watch(event)
    return found


def test_a_phase_is_estimated_from_its_first_runs_and_then_reported():
    p = AnalysisProgress
    found = said((0, p("a", 2, 12, 2)), (3, p("a", 3, 12, 2)), (5, p("a", 4, 12, 2)), (31, p("a", 12, 12, 2)))
    assert found == ["a: 12 runs, about 27 s to go", "a: 12 runs in 31 s, 2 of them kept from before"]


def test_a_phase_without_runs_is_not_mentioned_and_one_may_come_again():
    p = AnalysisProgress
    found = said((0, p("none", 0, 0, 0)), (1, p("a", 0, 1, 0)), (2, p("a", 1, 1, 0)), (3, p("a", 1, 1, 1)))
    assert found == ["a: 1 runs in 1 s", "a: 1 runs in 0 s, 1 of them kept from before"]
