"""Float arithmetic, one element at a time, with numpy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops.table import Call, Result, check, op, same, with_mask


def _broadcast(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    a, b = inputs
    assert a is not None and b is not None
    check(a.dtype == b.dtype == "f32", f"float arithmetic on {a.dtype} and {b.dtype}")
    try:
        return [("f32", np.broadcast_shapes(a.shape, b.shape))]
    except ValueError:
        check(False, f"shapes {a.shape} and {b.shape} do not broadcast")
        raise


def _binary(name: str, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    @op(name, _broadcast, 2, inplace={0: (0, 1)})
    def run(call: Call) -> np.ndarray:
        return function(call[0], call[1]).astype(call.real)


_binary("Add", np.add)
_binary("Sub", np.subtract)
_binary("Mul", np.multiply)


@op("Clip", with_mask(same(0)), 1, {"lo": -math.inf, "hi": math.inf}, inplace={0: (0,)})
def clip(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """x f32 -> min(max(x, lo), hi)[, mask: lo < x < hi]. Relu is Clip(lo=0)."""
    x, lo, hi = call[0], call.attrs["lo"], call.attrs["hi"]
    return np.clip(x, lo, hi).astype(call.real), (x > lo) & (x < hi)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, element by element."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + erf(x / math.sqrt(2)))


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


TANH_FACTOR = math.sqrt(2 / math.pi)  # of Gelu's approximation (Hendrycks and Gimpel, arXiv:1606.08415)


def _inner(x: np.ndarray) -> np.ndarray:
    return np.tanh(TANH_FACTOR * (x + 0.044715 * x**3))


def _gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    t = _inner(x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * TANH_FACTOR * (1 + 3 * 0.044715 * x * x)


# name -> (function, slope as a function of x, slope as a function of y or None)
Unary = Callable[..., np.ndarray]
UNARY: dict[str, tuple[Unary, Unary, bool]] = {
    # (function(x, attrs), slope(x or y, attrs), whether the slope is taken at y)
    "Sigmoid": (lambda x, a: sigmoid(x), lambda y, a: y * (1 - y), True),
    "Tanh": (lambda x, a: np.tanh(x), lambda y, a: 1 - y * y, True),
    "HardSigmoid": (
        lambda x, a: np.clip(a["alpha"] * x + a["beta"], 0, 1),
        lambda x, a: a["alpha"] * ((a["alpha"] * x + a["beta"] > 0) & (a["alpha"] * x + a["beta"] < 1)),
        False,
    ),
    "HardSwish": (
        lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x, a: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
        False,
    ),
    "Silu": (lambda x, a: x * sigmoid(x), lambda x, a: sigmoid(x) * (1 + x * (1 - sigmoid(x))), False),
    "Erf": (lambda x, a: erf(x), lambda x, a: 2 / math.sqrt(math.pi) * np.exp(-x * x), False),
    "Gelu": (
        lambda x, a: x * _normal_cdf(x),
        lambda x, a: _normal_cdf(x) + x * _normal_density(x),
        False,
    ),
    "GeluTanh": (lambda x, a: 0.5 * x * (1 + _inner(x)), lambda x, a: _gelu_tanh_slope(x), False),
}
UNARY_ATTRS: dict[str, Attrs] = {"HardSigmoid": {"alpha": 0.2, "beta": 0.5}}


def _unary(name: str) -> None:
    function, slope, _ = UNARY[name]
    attrs = UNARY_ATTRS.get(name, {})

    @op(name, same(0), 1, attrs, inplace={0: (0,)})
    def run(call: Call) -> np.ndarray:
        return function(call[0], call.attrs).astype(call.real)

    @op(f"{name}Grad", same(0, 1), 2, attrs, inplace={0: (0, 1)})
    def grad(call: Call) -> np.ndarray:
        return (call[0] * slope(call[1], call.attrs)).astype(call.real)


for _name in UNARY:
    _unary(_name)


@op("Scale", same(0), 1, {"factor": 1.0}, inplace={0: (0,)})
def scale(call: Call) -> np.ndarray:
    """x f32 -> x * factor (rounded to fp32 first)."""
    return (call[0] * call.real(np.float32(call.attrs["factor"]))).astype(call.real)


@op("Softmax", same(0), 1, inplace={0: (0,)})
def softmax(call: Call) -> np.ndarray:
    """x f32 (..., K) -> exp(x) / sum exp(x) over the last axis."""
    e = np.exp(call[0] - call[0].max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(call.real)


@op("SoftmaxGrad", same(0, 1), 2, inplace={0: (0,)})
def softmax_grad(call: Call) -> np.ndarray:
    """dy, y -> y * (dy - sum(dy y)) over the last axis."""
    dy, y = call[0], call[1]
    return (y * (dy - (dy * y).sum(-1, keepdims=True))).astype(call.real)
