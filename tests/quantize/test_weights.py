from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainlet.quantize.weights import (
    DEAD_SCALE,
    effective_scales,
    quantize_bias,
    quantize_weight,
    weight_scales,
)


@given(st.integers(0, 2**32 - 1))
def test_each_output_channel_has_its_own_scale_and_reaches_127(seed: int) -> None:
    random = np.random.default_rng(seed)
    w = random.normal(0, 1, (6, 3, 3, 4)) * 10.0 ** random.integers(-3, 3, (6, 1, 1, 1))
    scales = weight_scales(w, np.zeros(6), 0.02)
    np.testing.assert_allclose(scales, np.abs(w).max((1, 2, 3)) / 127, rtol=1e-6)
    q = quantize_weight(w, scales)
    assert (np.abs(q.astype(int)).max((1, 2, 3)) == 127).all()
    error = np.abs(q * scales[:, None, None, None].astype(np.float64) - w)
    assert (error <= 0.5001 * scales[:, None, None, None]).all()


def test_dead_channel_gets_a_tiny_positive_scale() -> None:
    w = np.stack([np.zeros((1, 1, 4)), np.ones((1, 1, 4))])
    scales = weight_scales(w, np.zeros(2), 0.02)
    assert scales[0] == np.float32(DEAD_SCALE)
    assert (quantize_weight(w, scales)[0] == 0).all()


def test_bias_of_a_dead_channel_survives() -> None:
    w, bias = np.zeros((1, 8)), np.array([3.0], np.float32)
    scales = weight_scales(w, bias, 0.01)
    stored = quantize_bias(bias, 0.01, scales)
    assert abs(int(stored[0])) <= 2**31 - 1
    np.testing.assert_allclose(stored * 0.01 * scales.astype(np.float64), bias, rtol=1e-6)


def test_biases_count_in_units_of_both_scales() -> None:
    scales = np.array([0.5, 0.25], np.float32)
    assert quantize_bias(np.array([1.0, -1.0]), 0.125, scales).tolist() == [16, -32]
    assert quantize_bias(np.array([0.03125, 0.09375]), 0.125, scales).tolist() == [0, 3]
    assert quantize_bias(np.array([1e30, -1e30]), 0.125, scales).tolist() == [2**31 - 1, -(2**31)]
    assert quantize_bias(np.array([1.0]), 0.125, scales[:1]).dtype == np.int32


def test_effective_scale_is_rounded_once() -> None:
    x, w, y = 0.0078431377, np.array([0.0031, 0.2], np.float32), 0.0234
    wanted = np.float32(np.float64(x) * w.astype(np.float64) / y)
    assert (effective_scales(x, w, y) == wanted).all()
