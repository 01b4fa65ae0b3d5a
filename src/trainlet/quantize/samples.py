"""Real arrays to int8 and back, by the parameters of a value."""

from __future__ import annotations

import numpy as np

from trainlet.errors import DataError, ModelError
from trainlet.ir.graph import Graph, Quant


def quantize_array(x: np.ndarray, quant: Quant) -> np.ndarray:
    """int8 of x: rint(x / scale) + zero_point in float32, clamped (the op QuantizeLinear)."""
    q = np.rint(np.asarray(x, np.float32) / np.float32(quant.scale)) + np.float32(quant.zero_point)
    return np.clip(q, -128, 127).astype(np.int8)


def dequantize_array(q: np.ndarray, quant: Quant) -> np.ndarray:
    """float32 of int8 q: (q - zero_point) * scale (the op DequantizeLinear)."""
    return (np.asarray(q).astype(np.int32) - quant.zero_point).astype(np.float32) * np.float32(quant.scale)


def quantize_samples(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """int8 inputs of an int8 graph from real ones (M, *sample shape).

    Raises DataError where the samples have another shape, or hold NaN or infinity.
    """
    samples = np.asarray(samples)
    quant = _input_quant(graph, samples)
    if not np.isfinite(samples).all():
        raise DataError(f"samples for input {graph.inputs[0].name} hold NaN or infinity; remove them")
    return quantize_array(samples, quant)


def dequantize_samples(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """float32 values that int8 inputs (M, *sample shape) of an int8 graph stand for."""
    samples = np.asarray(samples)
    quant = _input_quant(graph, samples)
    if samples.dtype != np.int8:
        raise DataError(f"samples for input {graph.inputs[0].name} are {samples.dtype}, not int8")
    return dequantize_array(samples, quant)


def _input_quant(graph: Graph, samples: np.ndarray) -> Quant:
    value = graph.inputs[0]
    if value.quant is None:
        raise ModelError(f"input {value.name} of {graph.name} is not quantized; call quantize() first")
    if samples.ndim == 0 or samples.shape[1:] != value.shape[1:]:
        want = ", ".join(map(str, value.shape[1:]))
        raise DataError(f"samples have shape {samples.shape}, input {value.name} takes (samples, {want})")
    return value.quant
