"""Normalization over the channels of a row (layer) or over all rows of a channel (batch), and its gradients.

Rows are all but the last dimension, C is the last. The gradient ops recompute or take the statistics; they
keep no normalized copy of x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops.table import Call, Result, check, op

EPS: Attrs = {"eps": 1e-5}


def _like_x(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    """x's type; every other operand that is there is one number a channel."""
    x = inputs[0]
    assert x is not None
    check(x.dtype == "f32" and len(x.shape) >= 2, f"normalizes {x.dtype} of shape {x.shape}")
    for v in inputs[1:]:
        check(v is None or v.shape == x.shape[-1:], f"{v and v.shape} for {x.shape[-1]} channels")
    return [("f32", x.shape)]


def _gradient(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    """dy, x of one shape, then one number a channel -> dx."""
    dy, x = inputs[:2]
    assert dy is not None and x is not None
    check(dy.shape == x.shape, f"gradient {dy.shape} of {x.shape}")
    return _like_x((x, *inputs[2:]), attrs)


def _by_channel(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    return [("f32", _gradient(inputs, attrs)[0][1][-1:])]


def _layer_statistics(call: Call, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x normalized by row, and 1 / sigma of each row, in float64."""
    x = x.astype(np.float64)
    centered = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((centered**2).mean(-1, keepdims=True) + float(call.attrs["eps"]))  # type: ignore[arg-type]
    return centered * rstd, rstd


@op("LayerNormalization", _like_x, (1, 3), EPS, inplace={0: (0,)})
def layer_normalization(call: Call) -> np.ndarray:
    """x f32 (..., C), gamma (C)?, beta (C)? -> (x - mean) / sqrt(var + eps) * gamma + beta, by row.

    Ba et al., arXiv:1607.06450; the variance is the biased one.
    """
    y, _ = _layer_statistics(call, call[0])
    y = y if call[1] is None else y * call[1]
    return (y if call[2] is None else y + call[2]).astype(call.real)


@op("LayerNormInputGrad", _gradient, (2, 3), EPS, inplace={0: (0,)})
def layer_norm_input_grad(call: Call) -> np.ndarray:
    """dy, x, gamma? -> dx = (g - mean(g) - xhat mean(g xhat)) / sigma, g = dy gamma."""
    hat, rstd = _layer_statistics(call, call[1])
    g = call[0] if call[2] is None else call[0] * call[2]
    dx = rstd * (g - g.mean(-1, keepdims=True) - hat * (g * hat).mean(-1, keepdims=True))
    return dx.astype(call.real)


@op("LayerNormScaleGrad", _by_channel, 2, EPS)
def layer_norm_scale_grad(call: Call) -> np.ndarray:
    """dy, x -> dgamma (C) = sum of dy xhat over the rows."""
    hat, _ = _layer_statistics(call, call[1])
    return (call[0] * hat).reshape(-1, hat.shape[-1]).sum(0).astype(call.real)


def _affine(call: Call, hat: np.ndarray) -> np.ndarray:
    y = hat if call[1] is None else hat * call[1]
    return (y if call[2] is None else y + call[2]).astype(call.real)


@op("BatchNormalization", _like_x, 5, {**EPS, "momentum": 0.1}, inplace={0: (0,)})
def batch_normalization(call: Call) -> np.ndarray:
    """x f32 (..., C), gamma (C)?, beta (C)?, mean (C), var (C) -> (x - mean) / sqrt(var + eps) gamma + beta.

    With running statistics: what a network does when it predicts. Training it turns it into BatchNormTrain.
    """
    sigma = np.sqrt(call[4].astype(np.float64) + float(call.attrs["eps"]))  # type: ignore[arg-type]
    return _affine(call, (call[0] - call[3].astype(np.float64)) / sigma)


def _trained(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    (y,) = _like_x(inputs, attrs)
    channel: Result = ("f32", y[1][-1:])
    rows = int(np.prod(y[1][:-1]))
    check(rows > 1, "batch statistics of one value a channel: take a larger batch, or norm=folded")
    return [y, channel, channel, channel, channel]


@op("BatchNormTrain", _trained, 5, {**EPS, "momentum": 0.1})
def batch_norm_train(call: Call) -> tuple[np.ndarray, ...]:
    """x f32 (..., C), gamma?, beta?, running mean, running var -> y, new running mean, new running var,
    batch mean, 1 / sqrt(batch var + eps).

    The batch variance is biased where it normalizes and unbiased where it is remembered, as in PyTorch:
    running = (1 - momentum) running + momentum batch. Ioffe and Szegedy, arXiv:1502.03167, algorithm 1.
    """
    x = call[0].astype(np.float64).reshape(-1, call[0].shape[-1])
    mean, var, m = x.mean(0), x.var(0), float(call.attrs["momentum"])  # type: ignore[arg-type]
    rstd = 1 / np.sqrt(var + float(call.attrs["eps"]))  # type: ignore[arg-type]
    y = _affine(call, (call[0] - mean) * rstd)
    unbiased = var * len(x) / (len(x) - 1)
    running = ((1 - m) * call[3] + m * mean, (1 - m) * call[4] + m * unbiased)
    return (y, *(v.astype(call.real) for v in (*running, mean, rstd)))


@op("BatchNormScaleGrad", _by_channel, 4)
def batch_norm_scale_grad(call: Call) -> np.ndarray:
    """dy, x, batch mean, 1 / sigma -> dgamma (C) = sum of dy xhat over the rows."""
    hat = (call[1] - call[2].astype(np.float64)) * call[3]
    return (call[0] * hat).reshape(-1, hat.shape[-1]).sum(0).astype(call.real)


@op("BatchNormInputGrad", _gradient, 7, inplace={0: (0,)})
def batch_norm_input_grad(call: Call) -> np.ndarray:
    """dy, x, gamma?, batch mean, 1 / sigma, dgamma, dbeta -> dx.

    dx = gamma / sigma (dy - dbeta / n - xhat dgamma / n) over the n rows.
    """
    dy, x, gamma, mean, rstd, d_gamma, d_beta = (call[i] for i in range(7))
    n = x.size // x.shape[-1]
    hat = (x - mean.astype(np.float64)) * rstd
    dx = rstd * (dy - d_beta / n - hat * d_gamma / n)
    return (dx if gamma is None else dx * gamma).astype(call.real)
