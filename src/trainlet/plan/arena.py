"""Offsets for tensors such that no two that are alive at the same step overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainlet.plan.liveness import LiveRange

ALIGNMENT = 4


@dataclass(frozen=True)
class Placement:
    """Offset in bytes of each tensor in the arena, and the bytes the arena needs."""

    offsets: Mapping[str, int]
    peak_bytes: int


def place(ranges: Sequence[LiveRange]) -> Placement:
    """The best of several greedy placements, deterministic; offsets are multiples of 4.

    Each is best fit in a fixed order of the tensors (Pisarchyk and Lee, arXiv:2001.03288): by
    decreasing size, by decreasing size x lifetime, by lifetime, by start. If none reaches the lower
    bound, tensors that stick out at the top are moved to the front of the order and placed anew.
    """
    orders: list[Callable[[LiveRange], tuple[int, ...]]] = [
        lambda r: (-r.bytes, r.start),
        lambda r: (-r.bytes * (r.end - r.start + 1), r.start),
        lambda r: (-(r.end - r.start), -r.bytes),
        lambda r: (r.start, -r.bytes),
    ]
    bound = _bound(ranges)
    best: Placement | None = None
    for key in orders:
        order = sorted(ranges, key=key)
        for _ in range(24):
            placement = _best_fit(order)
            if best is None or placement.peak_bytes < best.peak_bytes:
                best = placement
            if best.peak_bytes <= bound:
                return best
            order = _raise_priority(order, placement)
    assert best is not None
    return best


def _bound(ranges: Sequence[LiveRange]) -> int:
    events = sorted({r.start for r in ranges})
    return max((sum(r.bytes for r in ranges if r.start <= t <= r.end) for t in events), default=0)


def _raise_priority(order: list[LiveRange], placement: Placement) -> list[LiveRange]:
    """The tensors that end at the peak come first in the next try."""
    top = [r for r in order if placement.offsets[r.name] + r.bytes == placement.peak_bytes]
    return top + [r for r in order if r not in top]


def _best_fit(order: Sequence[LiveRange]) -> Placement:
    placed: list[tuple[int, int, LiveRange]] = []  # (offset, end, range), sorted by offset
    offsets: dict[str, int] = {}
    for r in order:
        busy = [(a, b) for a, b, o in placed if o.start <= r.end and r.start <= o.end]
        offset = _gap(busy, r.bytes)
        offsets[r.name] = offset
        placed.append((offset, offset + r.bytes, r))
        placed.sort(key=lambda p: p[0])
    return Placement(offsets, max((b for _, b, _ in placed), default=0))


def _gap(busy: Sequence[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap between busy intervals (sorted) that holds `size` bytes."""
    best, best_gap, at = None, 0, 0
    for a, b in busy:
        start = -(-at // ALIGNMENT) * ALIGNMENT
        if a - start >= size and (best is None or a - start < best_gap):
            best, best_gap = start, a - start
        at = max(at, b)
    return -(-at // ALIGNMENT) * ALIGNMENT if best is None else best
