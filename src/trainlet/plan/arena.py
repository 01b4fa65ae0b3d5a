"""Offsets for tensors such that no two that are alive at the same step overlap."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainlet.plan.liveness import LiveRange

ALIGNMENT = 4
LONG = 0.2  # of all steps: what lives longer waits for the backward pass
ROUNDS = 24  # each costs as many placements as there are orders
CLOSE = 4096  # a placement within bound / CLOSE bytes of the lower bound ends the search

Gap = Callable[[Sequence[tuple[int, int]], int, int], int]


@dataclass(frozen=True)
class Placement:
    """Offset in bytes of each tensor in the arena, and the bytes the arena needs."""

    offsets: Mapping[str, int]
    peak_bytes: int


def place(ranges: Sequence[LiveRange], alignment: int = ALIGNMENT) -> Placement:
    """The best of several greedy placements, deterministic; offsets are multiples of `alignment` bytes.

    Each is best fit or first fit in a fixed order of the tensors (Pisarchyk and Lee, arXiv:2001.03288): by
    decreasing size, size x lifetime, lifetime, by start, by end, by the most bytes that are ever alive
    beside them, and what waits for the backward pass before everything else. While none comes close to the
    lower bound, tensors that stick out at the top are moved to the front of each order and placed anew.
    """
    crowd = _crowd(ranges)
    bound = max(crowd.values(), default=0)
    long = LONG * max((r.end + 1 for r in ranges), default=0)
    keys: list[Callable[[LiveRange], tuple[int, ...]]] = [
        lambda r: (-r.bytes, r.start),
        lambda r: (-crowd[r.name], -r.bytes),
        lambda r: (-r.bytes * (r.end - r.start + 1), r.start),
        lambda r: (-(r.end - r.start), -r.bytes),
        lambda r: (r.start, -r.bytes),
        lambda r: (-r.end, -r.bytes),
        lambda r: (-(r.end - r.start), 0) if r.end - r.start >= long else (0, -r.bytes),
    ]
    orders = [(gap, sorted(ranges, key=key)) for key in keys for gap in (_best_gap, _first_gap)]
    best: Placement | None = None
    for _ in range(ROUNDS):
        for i, (gap, order) in enumerate(orders):
            placement = _fit(order, gap, alignment)
            if best is None or placement.peak_bytes < best.peak_bytes:
                best = placement
            if best.peak_bytes <= bound + bound // CLOSE:
                return best
            orders[i] = gap, _raise_priority(order, placement)
    assert best is not None
    return best


def _crowd(ranges: Sequence[LiveRange]) -> dict[str, int]:
    """Per tensor the most bytes alive at once during its life; the largest is the lower bound."""
    starts = sorted({r.start for r in ranges})
    alive = [(t, sum(r.bytes for r in ranges if r.start <= t <= r.end)) for t in starts]
    return {r.name: max(n for t, n in alive if r.start <= t <= r.end) for r in ranges}


def _raise_priority(order: list[LiveRange], placement: Placement) -> list[LiveRange]:
    """The tensors that end at the peak come first in the next try."""
    top = [r for r in order if placement.offsets[r.name] + r.bytes == placement.peak_bytes]
    return top + [r for r in order if r not in top]


def _fit(order: Sequence[LiveRange], gap: Gap, alignment: int) -> Placement:
    placed: list[tuple[int, int, int, int]] = []  # (offset, end of the bytes, first step, last step), sorted
    offsets: dict[str, int] = {}
    peak = 0
    for r in order:
        busy = [(at, end) for at, end, first, last in placed if first <= r.end and r.start <= last]
        offset = offsets[r.name] = gap(busy, r.bytes, alignment)
        insort(placed, (offset, offset + r.bytes, r.start, r.end))
        peak = max(peak, offset + r.bytes)
    return Placement(offsets, peak)


def _first_gap(busy: Sequence[tuple[int, int]], size: int, alignment: int) -> int:
    """Start of the lowest gap between busy intervals (sorted) that holds `size` bytes."""
    start = 0
    for at, end in busy:
        if at - start >= size:
            break
        if end > start:
            start = -(-end // alignment) * alignment
    return start


def _best_gap(busy: Sequence[tuple[int, int]], size: int, alignment: int) -> int:
    """Start of the smallest gap between busy intervals (sorted) that holds `size` bytes."""
    best, best_gap, start = None, 0, 0
    for at, end in busy:
        gap = at - start
        if gap >= size and (best is None or gap < best_gap):
            best, best_gap = start, gap
        if end > start:
            start = -(-end // alignment) * alignment
    return start if best is None else best
