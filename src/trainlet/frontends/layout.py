"""Where the elements of a model's tensor lie in our memory, while the user's shape says something else.

ONNX and PyTorch models are channels first, our graphs channels last. A `Placed` tensor is one of our
values, the shape the user's model gives it, and the order its elements are stored in. Reshape, Flatten,
Squeeze and Transpose of the user's tensor then only change what is known about it; elements move when an
operator needs them in an order they are not in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainlet.ir.graph import Shape, Value

# The digits of a memory position, slowest first: (size, stride in the user's flat C-order index).
# Digits of size 1 are left out and digits that count on from one another are merged, so equal
# orders are equal tuples. ((size, 1),) is the user's own order.
Order = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the user's model: its elements are those of `value` (any shape of that size),
    stored in `order` of the user's `shape`."""

    value: Value
    shape: Shape
    order: Order


def canonical(digits: Iterable[tuple[int, int]]) -> Order:
    """The one way to write an order: no digit of size 1, adjacent digits merged."""
    merged: list[tuple[int, int]] = []
    for size, stride in digits:
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)


def strides(shape: Shape) -> Shape:
    """C-order strides in elements."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def channels_last(rank: int) -> tuple[int, ...]:
    """The permutation (N, C, *S) -> (N, *S, C)."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def order_of(shape: Shape, perm: Sequence[int] | None = None) -> Order:
    """The order in which dimension i in memory is dimension perm[i] of `shape` (default: the user's)."""
    step = strides(shape)
    return canonical((shape[p], step[p]) for p in (range(len(shape)) if perm is None else perm))


def split(order: Order, cuts: Iterable[int]) -> Order | None:
    """`order` with its digits cut at these strides, not canonical; None where one does not divide."""
    cuts, out = set(cuts), []
    for size, stride in order:
        inside = {c for c in cuts if stride < c < stride * size}
        bounds = sorted({stride, stride * size} | inside)
        if any(high % low for low, high in pairwise(bounds)):
            return None
        out += [(high // low, low) for low, high in reversed(list(pairwise(bounds)))]
    return tuple(out)


def permutation(order: Order, shape: Shape) -> tuple[int, ...] | None:
    """The permutation of the user's dimensions that `order` is, None where it splits a dimension.

    Where sizes of 1 leave a choice: channels last, then the user's order.
    """
    rank = len(shape)
    for perm in (channels_last(rank), tuple(range(rank))):
        if order_of(shape, perm) == order:
            return perm
    where = {(d, s): i for i, (d, s) in enumerate(zip(shape, strides(shape), strict=True)) if d > 1}
    digits = split(order, strides(shape)) or ()
    if set(digits) != set(where):
        return None
    return (*(i for i, d in enumerate(shape) if d == 1), *(where[digit] for digit in digits))


def transposed(order: Order, shape: Shape, perm: Sequence[int]) -> Order | None:
    """The order of the same elements once the user has transposed `shape` by `perm`.

    None where a digit does not split at the user's dimensions.
    """
    digits = split(order, strides(shape))
    if digits is None:
        return None
    old, new = strides(shape), strides(tuple(shape[p] for p in perm))
    moved = []
    for size, stride in digits:
        dim = next(i for i, s in enumerate(old) if s <= stride and shape[i] > 1)
        moved.append((size, stride // old[dim] * new[list(perm).index(dim)]))
    return canonical(moved)


def rows_and_columns(order: Order, width: int) -> tuple[Order, Order] | None:
    """`order` as (rows, columns) of matrices of `width` columns; None where they are interleaved."""
    digits = split(order, (width,))
    if digits is None:
        return None
    rows = tuple(d for d in digits if d[1] >= width)
    return (rows, digits[len(rows) :]) if digits[: len(rows)] == rows else None


def flat_index(order: Order) -> np.ndarray:
    """The user's flat index of each memory position."""
    index = np.zeros(1, np.int64)
    for size, stride in order:
        index = (index[:, None] + np.arange(size) * stride).reshape(-1)
    return index


def finest(order: Order, shape: Shape) -> tuple[tuple[tuple[int, int], ...], ...] | None:
    """Per dimension of `shape`, the digits of `order` inside it, slowest first; None as in `split`."""
    digits = split(order, strides(shape))
    if digits is None:
        return None
    return tuple(
        tuple(sorted((d for d in digits if s <= d[1] < s * n), key=lambda d: -d[1]))
        for n, s in zip(shape, strides(shape), strict=True)
    )
