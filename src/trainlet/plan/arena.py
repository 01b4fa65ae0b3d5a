"""Offsets for tensors such that no two that are alive at the same step overlap."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainlet.plan.liveness import LiveRange

ALIGNMENT = 4
ROUNDS = 24  # each costs as many placements as there are orders
CLOSE = 4096  # a placement within bound / CLOSE bytes of the lower bound ends the search

Gap = Callable[[Sequence[tuple[int, int]], int, int], int]
Key = Callable[[LiveRange], tuple[int, ...]]


@dataclass(frozen=True)
class Placement:
    """Offset in bytes of each tensor in the arena, and the bytes the arena needs."""

    offsets: Mapping[str, int]
    peak_bytes: int


def place(ranges: Sequence[LiveRange], alignment: int = ALIGNMENT) -> Placement:
    """The best of several greedy placements, deterministic; offsets are multiples of `alignment` bytes.

    Each is best fit or first fit in a fixed order of the tensors (`_orders`; Pisarchyk and Lee,
    arXiv:2001.03288). While none comes close to the lower bound, tensors that stick out at the top are moved
    to the front of each order and placed anew.
    """
    crowd = _crowd(ranges)
    bound = max(crowd.values(), default=0)
    orders = [(gap, sorted(ranges, key=key)) for gap, key in _orders(ranges, crowd)]
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


def _orders(ranges: Sequence[LiveRange], crowd: Mapping[str, int]) -> list[tuple[Gap, Key]]:
    """Ways to place: by decreasing size, size x lifetime, lifetime, by start, by end, by the most bytes that
    are ever alive beside a tensor (`crowd`); or first what waits for the backward pass, then the rest.

    Those that, of all of these, together gave the smallest plans of the published schemes.
    """
    steps = max((r.end + 1 for r in ranges), default=0)

    def life(r: LiveRange) -> int:
        return r.end - r.start

    def waiting(share: float, first: Key, rest: Key) -> Key:
        """Tensors that live longer than this share of all steps come first."""
        return lambda r: (0, *first(r)) if life(r) >= share * steps else (1, *rest(r))

    def size(r: LiveRange) -> tuple[int, ...]:
        return (-r.bytes,)

    def longest(r: LiveRange) -> tuple[int, ...]:
        return (-life(r), -r.bytes)

    def crowded(r: LiveRange) -> tuple[int, ...]:
        return (-crowd[r.name], -r.bytes)

    def earliest(r: LiveRange) -> tuple[int, ...]:
        return (r.start, -r.bytes)

    return [
        (_best_gap, lambda r: (-r.bytes, r.start)),
        (_best_gap, crowded),
        (_best_gap, lambda r: (-r.bytes * (life(r) + 1), r.start)),
        (_best_gap, longest),
        (_best_gap, earliest),
        (_best_gap, lambda r: (-r.end, -r.bytes)),
        (_first_gap, longest),
        (_first_gap, crowded),
        (_first_gap, waiting(0.05, longest, size)),
        (_best_gap, waiting(0.1, longest, size)),
        (_best_gap, waiting(0.2, longest, size)),
        (_best_gap, waiting(0.1, earliest, size)),
        (_best_gap, waiting(0.1, earliest, crowded)),
    ]


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
