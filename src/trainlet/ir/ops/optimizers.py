"""Optimizer steps as ops: what happens to a trained tensor once its gradient is known.

`rule`: sgd, momentum, adamw, accumulate (w += dw; w is a gradient sum).
`master`: how a step smaller than one unit of an integer weight is kept: fp32 (w is float),
residual (w and an int8 fraction: 8.8), stochastic, nearest (w alone). See runtime of int8.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Node, Value
from trainlet.ir.ops.table import Call, Result, check, op

UPDATE: Attrs = {
    "rule": "sgd",
    "master": "fp32",
    "momentum": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "stream": 0,
}
# Positions after the gradient: w, lr, scale?, rng?/fraction?...
OPERANDS = ("w", "lr", "scale", "fraction", "m", "v", "rng", "factor")
RULES = ("sgd", "momentum", "adamw", "accumulate")
MASTERS = ("fp32", "residual", "stochastic", "nearest")


def updated(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    """Results of an update whose operands, from w on, are `inputs`: w, then fraction, m, v if present."""
    check(attrs["rule"] in RULES, f"rule {attrs['rule']} is none of {', '.join(RULES)}")
    check(attrs["master"] in MASTERS, f"master {attrs['master']} is none of {', '.join(MASTERS)}")
    w = inputs[0]
    assert w is not None
    has_rate = len(inputs) > 1 and inputs[1] is not None
    check(has_rate or attrs["rule"] == "accumulate", f"rule {attrs['rule']} needs a learning rate")
    slots = [v for v in inputs[3:6] if v is not None]
    check(all(v.shape == w.shape for v in slots), "an optimizer slot differs in shape from its tensor")
    scale = inputs[2] if len(inputs) > 2 else None
    check(scale is None or scale.shape == w.shape[:1], "one scale per row")
    needs_float = attrs["rule"] in ("adamw", "accumulate") or attrs["master"] == "fp32"
    check(w.dtype == "f32" or not needs_float, f"{attrs['rule']}/{attrs['master']} on {w.dtype}")
    return [(v.dtype, v.shape) for v in (w, *slots)]


def update_operand(node: Node, name: str) -> Value | None:
    """Operand `name` of an update node, fused or not."""
    first = {"Update": 1, "BiasGradUpdate": 1, "ConvWeightGradUpdate": 3}[node.op]
    return node.input(first + OPERANDS.index(name))


def mix(x: np.ndarray) -> np.ndarray:
    """MurmurHash3's 32-bit finalizer (Appleby, public domain), as tl_random.h."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def uniform(seed: int, step: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """[0, 1) in multiples of 2^-24, one number an element, a pure function of its arguments."""
    with np.errstate(over="ignore"):
        one = np.ones(1, np.uint32)
        key = mix(
            mix(mix(one * np.uint32(seed) + np.uint32(0x9E3779B9)) + np.uint32(step)) + np.uint32(stream)
        )
        index = np.arange(int(np.prod(shape)), dtype=np.uint32)
        bits = mix(mix(key + index * np.uint32(0x9E3779B9)) + (key ^ np.uint32(0x6A09E667)))
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)).reshape(shape)


def _round(s: np.ndarray, u: np.ndarray | None) -> np.ndarray:
    return np.rint(s) if u is None else np.floor(s + u)


def _store(
    w: np.ndarray, fraction: np.ndarray | None, s: np.ndarray, u: np.ndarray | None
) -> list[np.ndarray]:
    """The tensor after step s in its own units (tl_update.h); u: uniform numbers, None: to nearest."""
    s = np.where(np.isnan(s), 0, s).astype(np.float32)
    if w.dtype == np.float32:
        return [w - s]
    bits = 8 * w.dtype.itemsize
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if fraction is not None:
        assert u is not None
        whole = 256 * w.astype(np.int64) + fraction
        steps = np.clip(np.floor(np.float32(256) * s + u), -(2.0**40), 2.0**40).astype(np.int64)
        whole = np.clip(whole - steps, low * 256, high * 256 + 127)
        rounded = (whole + 128) >> 8
        return [rounded.astype(w.dtype), (whole - 256 * rounded).astype(np.int8)]
    if w.dtype == np.int8:
        whole = w.astype(np.float32)
        moved = np.rint(whole - s) if u is None else whole + np.floor(u - s)
        return [np.clip(moved, low, high).astype(np.int8)]
    steps = np.clip(_round(s, u), -(2.0**40), 2.0**40).astype(np.int64)
    return [np.clip(w - steps, low, high).astype(w.dtype)]


def _column(a: np.ndarray, like: np.ndarray) -> np.ndarray:
    return a.reshape(-1, *(1,) * (like.ndim - 1))


def run_update(call: Call, dw: np.ndarray, first: int) -> tuple[np.ndarray, ...]:
    """Results of an update whose operands from w on start at `first`."""
    w, lr, scale, fraction, m, v, rng, factor = (call[first + i] for i in range(len(OPERANDS)))
    a, f = call.attrs, call.real
    g = dw if factor is None else dw * factor[0]
    g = g if scale is None else g * _column(scale, g)
    if a["rule"] == "accumulate":
        return ((w + g).astype(f),)
    live = np.ones(w.shape, bool) if scale is None else np.broadcast_to(_column(scale, w) != 0, w.shape)
    value = w.astype(f) if fraction is None else w + fraction.astype(f) / 256
    step, slots = _adamw(a, f, g, value, m, v, rng) if a["rule"] == "adamw" else _sgd(a, f, g, value, m)
    step = lr[0] * step
    if w.dtype.kind == "f":
        stored, old = [(w - step).astype(w.dtype)], [w]
    else:
        stochastic = a["master"] in ("stochastic", "residual")
        u = uniform(int(rng[0]), int(rng[1]), int(a["stream"]), w.shape) if stochastic else None
        stored, old = _store(w, fraction, step, u), [w] if fraction is None else [w, fraction]
    kept = [np.where(live, new, before) for new, before in zip(stored, old, strict=True)]
    moments = [np.where(live, new, before).astype(f) for new, before in zip(slots, (m, v), strict=False)]
    return (*kept, *moments)


Stepped = tuple[np.ndarray, list[np.ndarray]]  # step before the learning rate, new slots


def _sgd(a: Attrs, f: type, g: np.ndarray, value: np.ndarray, m: np.ndarray | None) -> Stepped:
    g = g + f(np.float32(a["weight_decay"])) * value
    if a["rule"] == "sgd":
        return g, []
    m = f(np.float32(a["momentum"])) * m + g
    return m, [m]


def _adamw(
    a: Attrs, f: type, g: np.ndarray, value: np.ndarray, m: np.ndarray, v: np.ndarray, rng: np.ndarray
) -> Stepped:
    """Loshchilov and Hutter, arXiv:1711.05101, algorithm 2."""
    beta1, beta2, eps, decay = (f(np.float32(a[k])) for k in ("beta1", "beta2", "eps", "weight_decay"))
    t = int(rng[1]) + 1
    m = beta1 * m + f(1 - np.float32(a["beta1"])) * g
    v = beta2 * v + f(1 - np.float32(a["beta2"])) * g * g
    mean, square = m / f(1 - float(a["beta1"]) ** t), v / f(1 - float(a["beta2"]) ** t)
    return mean / (np.sqrt(square) + eps) + decay * value, [m, v]


@op("Update", lambda i, a: updated(i[1:], a), (2, 9), UPDATE, inplace={0: (1,)})
def update(call: Call) -> tuple[np.ndarray, ...]:
    """dw f32, w, lr f32 (1)?, scale f32 (rows)?, fraction s8?, m f32?, v f32?, rng u32 (2)?, factor f32 (1)?

    -> w after one step, then fraction, m, v where present. Only accumulate does without lr.
    A row whose scale is 0 is not touched. Quantization-aware scaling is `scale` (Lin et al.,
    arXiv:2206.15472, section 3.1).
    """
    return run_update(call, call[0], 1)


@op("NextStep", lambda i, a: [(i[0].dtype, i[0].shape)], 1, inplace={0: (0,)})  # type: ignore[union-attr]
def next_step(call: Call) -> np.ndarray:
    """rng u32 (seed, step) -> (seed, step + 1)."""
    return call[0] + np.array([0, 1], np.uint32)


@op("Fill", lambda i, a: [(i[0].dtype, i[0].shape)], 1, {"value": 0.0}, inplace={0: (0,)})  # type: ignore[union-attr]
def fill(call: Call) -> np.ndarray:
    """A tensor like the operand with every element `value`: clears a gradient sum."""
    return np.full_like(call[0], call.attrs["value"])
