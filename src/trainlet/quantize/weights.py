"""Int8 weights and int32 biases of one convolution or Gemm, symmetric, one scale per output channel."""

from __future__ import annotations

import numpy as np

# Scale of a dead channel (all weights zero): positive, and far below any live one.
DEAD_SCALE = 4e-9
# A bias is held to 2^30 so that training has room to move it within int32.
MAX_BIAS = 2.0**30


def weight_scales(w: np.ndarray, bias: np.ndarray, x_scale: float) -> np.ndarray:
    """f32 (O) scales for weights w (O, ...) and biases (O): max|w| / 127 per channel.

    A channel whose weights are (nearly) zero beside its bias gets the larger scale at which the bias
    fits int32: a bias counts in units of x_scale * scale.
    """
    largest = np.abs(w.astype(np.float64)).reshape(len(w), -1).max(1) / 127
    fits = np.abs(bias.astype(np.float64)) / (MAX_BIAS * x_scale)
    scales: np.ndarray = np.maximum(np.maximum(largest, fits), DEAD_SCALE).astype(np.float32)
    return scales


def quantize_weight(w: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """s8 weights in [-127, 127] of w (O, ...), half to even."""
    per_row = scales.astype(np.float64).reshape(-1, *(1,) * (w.ndim - 1))
    return np.clip(np.rint(w / per_row), -127, 127).astype(np.int8)


def quantize_bias(bias: np.ndarray, x_scale: float, scales: np.ndarray) -> np.ndarray:
    """s32 biases in units of x_scale * scales, half to even, saturated."""
    units = np.rint(bias.astype(np.float64) / (np.float64(x_scale) * scales.astype(np.float64)))
    return np.clip(units, -(2**31), 2**31 - 1).astype(np.int32)


def effective_scales(x_scale: float, scales: np.ndarray, y_scale: float) -> np.ndarray:
    """f32 (O): what an accumulator is multiplied by, x_scale * scale / y_scale rounded once."""
    eff: np.ndarray = x_scale * scales.astype(np.float64) / y_scale
    return eff.astype(np.float32)
