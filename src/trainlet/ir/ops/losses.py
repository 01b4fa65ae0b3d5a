"""Losses and their gradients, mean over the batch. The gradient is of the loss itself (seed 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops.elementwise import sigmoid
from trainlet.ir.ops.table import Call, Infer, Result, check, op


def _classes(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    z, label = inputs
    assert z is not None and label is not None
    check(len(z.shape) == 2 and label.shape == z.shape[:1], f"logits {z.shape}, labels {label.shape}")
    check(label.dtype == "s32", f"labels are {label.dtype}, not s32")
    return [("f32", (1,))]


def _targets(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    z, target = inputs
    assert z is not None and target is not None
    check(z.shape == target.shape, f"outputs {z.shape}, targets {target.shape}")
    return [("f32", (1,))]


def _gradient(rule: Infer) -> Infer:
    def infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
        rule(inputs, attrs)
        return [("f32", inputs[0].shape)]  # type: ignore[union-attr]

    return infer


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


@op("SoftmaxCrossEntropy", _classes, 2)
def softmax_cross_entropy(call: Call) -> np.ndarray:
    """logits f32 (N, K), label s32 (N) -> mean of -log softmax[label], f32 (1)."""
    z, label = call[0].astype(np.float64), call[1]
    return -_log_softmax(z)[np.arange(len(label)), label].mean(keepdims=True).astype(call.real)


@op("SoftmaxCrossEntropyGrad", _gradient(_classes), 2, inplace={0: (0,)})  # type: ignore[arg-type]
def softmax_cross_entropy_grad(call: Call) -> np.ndarray:
    """logits, label -> (softmax - onehot) / N."""
    z, label = call[0].astype(np.float64), call[1]
    p = np.exp(_log_softmax(z))
    p[np.arange(len(label)), label] -= 1
    return (p / len(label)).astype(call.real)


@op("SigmoidCrossEntropy", _targets, 2)
def sigmoid_cross_entropy(call: Call) -> np.ndarray:
    """logits f32 (N, K), target f32 (N, K) in [0, 1] -> mean over N of the sum over K, f32 (1)."""
    z, t = call[0].astype(np.float64), call[1]
    each = np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))
    return (each.sum() / len(z)).astype(call.real).reshape(1)


@op("SigmoidCrossEntropyGrad", _gradient(_targets), 2, inplace={0: (0,)})  # type: ignore[arg-type]
def sigmoid_cross_entropy_grad(call: Call) -> np.ndarray:
    """logits, target -> (sigmoid - target) / N."""
    return ((sigmoid(call[0].astype(np.float64)) - call[1]) / len(call[0])).astype(call.real)


@op("MeanSquaredError", _targets, 2)
def mean_squared_error(call: Call) -> np.ndarray:
    """y f32, target f32 of the same shape -> mean of (y - target)^2, f32 (1)."""
    return ((call[0].astype(np.float64) - call[1]) ** 2).mean(keepdims=True).reshape(-1)[:1].astype(call.real)


@op("MeanSquaredErrorGrad", _gradient(_targets), 2, inplace={0: (0,)})  # type: ignore[arg-type]
def mean_squared_error_grad(call: Call) -> np.ndarray:
    """y, target -> 2 (y - target) / size."""
    return (2 * (call[0] - call[1]) / call[0].size).astype(call.real)
