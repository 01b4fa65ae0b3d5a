"""Moving elements: no arithmetic, any dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Shape, Value
from trainlet.ir.ops.table import REQUIRED, Call, Result, check, op


def _ints(attrs: Attrs, name: str) -> Shape:
    return tuple(attrs[name])  # type: ignore[arg-type]


def _first(inputs: Sequence[Value | None]) -> Value:
    assert inputs[0] is not None
    return inputs[0]


def _reshaped(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, shape = _first(inputs), _ints(attrs, "shape")
    check(math.prod(shape) == x.size, f"reshapes {x.shape} to {shape}")
    return [(x.dtype, shape)]


@op("Reshape", _reshaped, 1, {"shape": REQUIRED}, view=True)
def reshape(call: Call) -> np.ndarray:
    """x -> the same elements in C order under `shape`."""
    return call[0].reshape(call.node.output.shape)


def _transposed(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, perm = _first(inputs), _ints(attrs, "perm")
    check(sorted(perm) == list(range(len(x.shape))), f"perm {perm} of a {len(x.shape)}-D operand")
    return [(x.dtype, tuple(x.shape[i] for i in perm))]


@op("Transpose", _transposed, 1, {"perm": REQUIRED})
def transpose(call: Call) -> np.ndarray:
    """x -> dimension i of the result is dimension perm[i] of x."""
    return np.ascontiguousarray(call[0].transpose(_ints(call.attrs, "perm")))


def _concatenated(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, axis = _first(inputs), int(attrs["axis"])  # type: ignore[arg-type]
    check(0 <= axis < len(x.shape), f"axis {axis} of a {len(x.shape)}-D operand")
    rest = [v.shape[:axis] + v.shape[axis + 1 :] for v in inputs if v is not None]
    check(
        all(r == rest[0] for r in rest), f"shapes differ off axis {axis}: {[v and v.shape for v in inputs]}"
    )
    total = sum(v.shape[axis] for v in inputs if v is not None)
    return [(x.dtype, (*x.shape[:axis], total, *x.shape[axis + 1 :]))]


@op("Concat", _concatenated, (1, 64), {"axis": REQUIRED})
def concat(call: Call) -> np.ndarray:
    """Operands one after another along `axis` (int8: all of one scale and zero point)."""
    return np.concatenate([a for a in call.inputs if a is not None], axis=int(call.attrs["axis"]))  # type: ignore[arg-type]


def _padded(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, pads = _first(inputs), _ints(attrs, "pads")
    rank = len(x.shape)
    check(len(pads) == 2 * rank and min(pads) >= 0, f"pads {pads} of a {rank}-D operand")
    return [(x.dtype, tuple(d + pads[i] + pads[rank + i] for i, d in enumerate(x.shape)))]


@op("Pad", _padded, 1, {"pads": REQUIRED, "value": 0.0})
def pad(call: Call) -> np.ndarray:
    """x -> x surrounded by `value` (an integer for s8); pads are all begins, then all ends."""
    pads, rank = _ints(call.attrs, "pads"), call[0].ndim
    widths = [(pads[i], pads[rank + i]) for i in range(rank)]
    return np.pad(call[0], widths, constant_values=call.attrs["value"])  # type: ignore[arg-type]


def _sliced(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, starts, sizes = _first(inputs), _ints(attrs, "starts"), _ints(attrs, "sizes")
    fits = len(starts) == len(sizes) == len(x.shape) and all(
        a >= 0 and b > 0 and a + b <= d for a, b, d in zip(starts, sizes, x.shape, strict=True)
    )
    check(fits, f"slice {starts} + {sizes} of {x.shape}")
    return [(x.dtype, sizes)]


@op("Slice", _sliced, 1, {"starts": REQUIRED, "sizes": REQUIRED})
def slice_(call: Call) -> np.ndarray:
    """x -> the block of `sizes` that begins at `starts`."""
    starts, sizes = _ints(call.attrs, "starts"), _ints(call.attrs, "sizes")
    return np.ascontiguousarray(call[0][tuple(slice(a, a + b) for a, b in zip(starts, sizes, strict=True))])


def _expanded(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, shape = _first(inputs), _ints(attrs, "shape")
    check(len(x.shape) <= len(shape), f"expands {x.shape} to {shape}")
    kept = zip(x.shape[::-1], shape[::-1], strict=False)
    check(all(a in (1, b) for a, b in kept), f"expands {x.shape} to {shape}")
    return [(x.dtype, shape)]


@op("Expand", _expanded, 1, {"shape": REQUIRED})
def expand(call: Call) -> np.ndarray:
    """x f32 -> x repeated along its dimensions of size 1 (and new ones in front) to `shape`."""
    return np.ascontiguousarray(np.broadcast_to(call[0], call.node.output.shape))


def _reduced(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, shape = _first(inputs), _ints(attrs, "shape")
    kept = x.shape[len(x.shape) - len(shape) :]
    fits = len(shape) <= len(x.shape) and all(d in (1, e) for d, e in zip(shape, kept, strict=False))
    check(fits, f"sums {x.shape} to {shape}")
    return [("f32", shape)]


@op("ReduceSum", _reduced, 1, {"shape": REQUIRED})
def reduce_sum(call: Call) -> np.ndarray:
    """x f32 -> summed to `shape`, which broadcasts to x's: the adjoint of a broadcast."""
    x, shape = call[0].astype(np.float64), call.node.output.shape
    lead = x.ndim - len(shape)
    x = x.sum(tuple(range(lead)))
    axes = tuple(i for i, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if a != b)
    return x.sum(axes, keepdims=True).astype(call.real)
