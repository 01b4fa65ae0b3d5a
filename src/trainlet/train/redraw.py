"""Which channels of a weight are trained in which epoch, where they are drawn anew for each.

The channels are shuffled, and windows of k of them taken in turn; when less than a window is left they are
shuffled again. So in total / k epochs each channel has been trained about once, and the program, its memory
and its saved inputs are those of k channels. kernels/portable/redraw.c draws the same.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF


def drawn(total: int, k: int, seed: int, stream: int, epoch: int) -> tuple[int, ...]:
    """The k of `total` channels that the weight number `stream` trains in an epoch, ascending."""
    windows = total // k
    key = _key(seed, epoch // windows, stream)
    order = sorted(range(total), key=lambda i: (_bits(key, i), i))
    first = epoch % windows * k
    return tuple(sorted(order[first : first + k]))


def _mix(x: int) -> int:
    """tl_mix of tl_random.h."""
    x ^= x >> 16
    x = x * 0x85EBCA6B & MASK
    x ^= x >> 13
    x = x * 0xC2B2AE35 & MASK
    return x ^ (x >> 16)


def _key(seed: int, step: int, stream: int) -> int:
    return _mix(_mix(_mix(seed + 0x9E3779B9 & MASK) + step & MASK) + stream & MASK)


def _bits(key: int, i: int) -> int:
    return _mix(_mix(key + i * 0x9E3779B9 & MASK) + (key ^ 0x6A09E667) & MASK)
