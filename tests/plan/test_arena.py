"""Placements against a brute-force overlap checker, on random live ranges."""

from __future__ import annotations

from itertools import combinations, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from trainlet.plan.arena import ALIGNMENT, Placement, place
from trainlet.plan.liveness import LiveRange, live_bytes

QUICK = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def ranges(draw: st.DrawFn, most: int = 30, unit: int = 1) -> list[LiveRange]:
    """Tensors of `unit` times any size, alive from the call (step -1) to at most step 20."""
    found = []
    for i in range(draw(st.integers(0, most))):
        start = draw(st.integers(-1, 20))
        size = unit * draw(st.one_of(st.integers(1, 40), st.integers(1, 5000)))
        found.append(LiveRange(f"t{i}", size, start, draw(st.integers(start, 20))))
    return found


def assert_legal(found: list[LiveRange], placement: Placement) -> None:
    """No two that are alive at one step share a byte; offsets are aligned, the peak is what is used."""
    spans = {r.name: (placement.offsets[r.name], placement.offsets[r.name] + r.bytes) for r in found}
    for a, b in combinations(found, 2):
        together = set(range(a.start, a.end + 1)) & set(range(b.start, b.end + 1))
        apart = spans[a.name][1] <= spans[b.name][0] or spans[b.name][1] <= spans[a.name][0]
        assert apart or not together, (a, b)
    assert all(at >= 0 and at % ALIGNMENT == 0 for at, _ in spans.values())
    assert placement.peak_bytes == max((end for _, end in spans.values()), default=0)


def bound(found: list[LiveRange]) -> int:
    return max((sum(r.bytes for r in found if r.start <= t <= r.end) for t in range(-1, 21)), default=0)


@given(ranges())
@QUICK
def test_tensors_alive_at_the_same_step_never_overlap(found: list[LiveRange]) -> None:
    assert_legal(found, place(found))


@given(ranges())
@QUICK
def test_peak_lies_between_the_lower_bound_and_the_sum(found: list[LiveRange]) -> None:
    peak = place(found).peak_bytes
    assert bound(found) <= peak <= sum(-(-r.bytes // ALIGNMENT) * ALIGNMENT for r in found)


@given(ranges(unit=ALIGNMENT))
@QUICK
def test_peak_is_close_to_the_lower_bound(found: list[LiveRange]) -> None:
    assert place(found).peak_bytes <= 1.25 * bound(found)


@given(ranges(most=5, unit=ALIGNMENT))
@settings(QUICK, max_examples=60)
def test_few_tensors_are_placed_optimally(found: list[LiveRange]) -> None:
    """The optimum is one of the first-fit placements, one for every order of the tensors."""
    assert place(found).peak_bytes == min(_first_fit(list(order)) for order in permutations(found))


def _first_fit(order: list[LiveRange]) -> int:
    spans: list[tuple[int, LiveRange]] = []
    for r in order:
        busy = [(at, o.bytes) for at, o in spans if o.start <= r.end and r.start <= o.end]
        tries = [0, *(at + size for at, size in busy)]
        free = (t for t in sorted(tries) if all(t + r.bytes <= at or at + n <= t for at, n in busy))
        spans.append((next(free), r))
    return max((at + r.bytes for at, r in spans), default=0)


@given(ranges())
@settings(QUICK, max_examples=50)
def test_placement_is_deterministic(found: list[LiveRange]) -> None:
    assert place(found) == place(list(found))


@given(ranges())
@QUICK
def test_live_bytes_are_counted_step_by_step(found: list[LiveRange]) -> None:
    expected = [sum(r.bytes for r in found if r.start <= t <= r.end) for t in range(-1, 22)]
    assert live_bytes(found, 21) == expected


def test_nothing_takes_no_memory() -> None:
    assert place([]) == Placement({}, 0)


@QUICK
@given(ranges())
def test_a_quick_placement_is_legal(found):
    placement = place(found, thorough=False)
    assert_legal(found, placement)
    assert placement.peak_bytes >= bound(found)
