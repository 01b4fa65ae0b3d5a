"""Elementwise kernels, int8 and fp32, and sums over dimensions."""

import math

import numpy as np
import pytest

from tests.kernels import reference as ref
from tests.kernels.drawing import close
from tests.kernels.reference import bits, f32, sigmoid


@pytest.mark.parametrize("count", [1, 7, 8, 100, 1001])
@pytest.mark.parametrize("target", ["new", "a", "b"])
def test_int8_addition(kernels, count, target):
    rng = np.random.default_rng(count)
    a, b = rng.integers(-128, 128, (2, count), dtype=np.int8)
    a, b = a.copy(), b.copy()
    za, zb, zy, sa, sb, sy = 3, -128, 11, f32(0.031), f32(0.0172), f32(0.0213)
    v = np.rint(((a.astype(f32) - f32(za)) * sa + (b.astype(f32) - f32(zb)) * sb) / sy) + f32(zy)
    mask = np.full((count + 7) // 8, 255, np.uint8)
    y = {"new": np.zeros(count, np.int8), "a": a, "b": b}[target]
    kernels.call("tl_add_s8", a, za, sa, b, zb, sb, sy, zy, y, mask, count, out=[y, mask])
    np.testing.assert_array_equal(y, ref.saturate(v))
    np.testing.assert_array_equal(mask, bits((v >= -128) & (v <= 127)))


@pytest.mark.parametrize("per_channel", [0, 1])
def test_int8_multiplication(kernels, per_channel):
    rng = np.random.default_rng(per_channel)
    batch, positions, channels = 2, 7, 13
    a = rng.integers(-128, 128, (batch, positions, channels), dtype=np.int8)
    b = rng.integers(-128, 128, (batch, 1 if per_channel else positions, channels), dtype=np.int8)
    product = (a.astype(np.int64) - 5) * (b.astype(np.int64) + 128)
    v = np.rint(product.astype(f32) * f32(0.0081)).astype(f32) + f32(-3)
    y, mask = np.zeros_like(a), np.full((a.size + 7) // 8, 255, np.uint8)
    kernels.call("tl_mul_s8", a, 5, b, -128, per_channel, 0.0081, -3, y, mask, batch, positions, channels,
                 out=[y, mask])  # fmt: skip
    np.testing.assert_array_equal(y, ref.saturate(v))
    np.testing.assert_array_equal(mask, bits((v >= -128) & (v <= 127)))


def test_lookup_tables(kernels):
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, 333, dtype=np.int8)
    table, slope = rng.integers(-128, 128, 256, dtype=np.int8), rng.normal(0, 1, 256).astype(f32)
    dy, y, dx = rng.normal(0, 1, 333).astype(f32), np.zeros(333, np.int8), np.zeros(333, f32)
    kernels.call("tl_lookup_s8", x, table, y, 333, out=[y])
    kernels.call("tl_lookup_grad", dx, dy, x, slope, 333, out=[dx])
    np.testing.assert_array_equal(y, table[x.astype(int) + 128])
    np.testing.assert_array_equal(dx, dy * slope[x.astype(int) + 128])


@pytest.mark.parametrize("count", [1, 8, 77])
def test_quantize_and_back(kernels, count):
    rng = np.random.default_rng(count)
    x = (rng.normal(0, 3, count)).astype(f32)
    x[0] = 3e38
    y, mask, back = np.zeros(count, np.int8), np.full((count + 7) // 8, 255, np.uint8), np.zeros(count, f32)
    kernels.call("tl_quantize", x, 0.03, -7, y, mask, count, out=[y, mask])
    with np.errstate(over="ignore"):
        v = np.rint(x / f32(0.03)) + f32(-7)
    np.testing.assert_array_equal(y, ref.saturate(v))
    np.testing.assert_array_equal(mask, bits((v >= -128) & (v <= 127)))
    kernels.call("tl_dequantize", y, 0.03, -7, back, count, out=[back])
    np.testing.assert_array_equal(back, (y.astype(np.int64) + 7).astype(f32) * f32(0.03))


erf = np.vectorize(math.erf)


def cdf(x):
    return 0.5 * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


UNARY = [
    (0, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    (1, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    (2, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), lambda x: np.where(abs(x) < 3, x / 3 + 0.5, x > 0)),
    (3, lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: np.where(abs(x) < 2.5, 0.2, 0)),
    (4, lambda x: np.clip(x, 0.2, 0.5), lambda x: (x > f32(0.2)) & (x < f32(0.5))),
    (5, lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    (6, erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    (7, lambda x: x * cdf(x), lambda x: cdf(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)),
    (8, gelu_tanh, lambda x: (gelu_tanh(x + 1e-6) - gelu_tanh(x - 1e-6)) / 2e-6),
]


@pytest.mark.parametrize("kind,function,slope", UNARY)
def test_unary_functions_and_gradients(kernels, kind, function, slope):
    x = np.concatenate([np.linspace(-12, 12, 997), np.linspace(-0.4, 0.4, 100), [-100, 100, 0]]).astype(f32)
    a, b = 0.2, 0.5
    y, mask = np.zeros_like(x), np.full((x.size + 7) // 8, 255, np.uint8)
    kernels.call("tl_unary_f32", kind, a, b, x, y, mask if kind == 4 else None, x.size, out=[y, mask])
    atol = 2e-6 if kind in (6, 7, 8) else 1e-7  # tl_erff is good to 3e-7 absolute, times x
    np.testing.assert_allclose(y, function(x.astype(np.float64)), rtol=1e-6, atol=atol)
    if kind == 4:
        np.testing.assert_array_equal(mask, bits((x > f32(a)) & (x < f32(b))))
    dy, dx = np.full_like(x, 2), np.zeros_like(x)
    kernels.call("tl_unary_grad_f32", kind, a, b, y if kind < 2 else x, dy, dx, x.size, out=[dx])
    slack = 4e-6 if kind > 5 else 1e-6
    np.testing.assert_allclose(dx, 2 * slope(x.astype(np.float64)), rtol=1e-5, atol=slack)


@pytest.mark.parametrize("kind,function", [(0, np.add), (1, np.subtract), (2, np.multiply), (3, np.divide)])
def test_binary_functions_broadcast(kernels, kind, function):
    rng = np.random.default_rng(kind)
    dims = np.array([2, 3, 4, 5], np.int32)
    for a_dims, b_dims in [(dims, dims), (dims, [1, 3, 1, 5]), ([2, 1, 4, 1], [1, 3, 1, 5])]:
        a, b = rng.uniform(1, 2, a_dims).astype(f32), rng.uniform(1, 2, b_dims).astype(f32)
        a_stride, b_stride = (
            np.array([0 if d == 1 else t // 4 for d, t in zip(v.shape, v.strides)], np.int32) for v in (a, b)
        )
        y = np.zeros(dims, f32)
        kernels.call("tl_binary_f32", kind, dims, a, a_stride, b, b_stride, y, out=[y])
        np.testing.assert_array_equal(y, function(a, b))


@pytest.mark.parametrize("keep", [(0, 0, 0, 1), (1, 0, 1, 0), (0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)])
def test_sums_over_dimensions(kernels, keep):
    dims, keep = np.array([2, 3, 4, 5], np.int32), np.array(keep, np.int32)
    x = np.random.default_rng(0).normal(0, 1, dims).astype(f32)
    want = x.astype(float).sum(tuple(i for i in range(4) if not keep[i]), keepdims=True)
    y = np.full(want.shape, np.nan, f32)
    kernels.call("tl_reduce_sum_f32", dims, keep, x, y, out=[y])
    close(y, want)


def test_scale_and_add_scaled_in_place(kernels):
    a, b = np.random.default_rng(0).normal(0, 1, (2, 99)).astype(f32)
    a, b = a.copy(), b.copy()
    want = a * f32(1.5) + f32(0.3) * b
    kernels.call("tl_scale_f32", a, a, 1.5, 99, out=[a])
    kernels.call("tl_add_scaled_f32", a, a, b, 0.3, 99, out=[a])
    np.testing.assert_array_equal(a, want)
