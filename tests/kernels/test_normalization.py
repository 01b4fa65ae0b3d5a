"""Normalizations and their gradients, in every build."""

import ctypes
from ctypes import c_float, c_void_p

import numpy as np
import pytest

from tests.kernels.reference import f32, pointer

EPS = 1e-3
SIZES = [(1, 1), (2, 7), (5, 16), (130, 33)]


class Statistics(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in "mean var new_mean new_var batch_mean batch_rstd".split()),
        ("eps", c_float), ("momentum", c_float),
    ]  # fmt: skip


def drawn(rows, c):
    rng = np.random.default_rng(rows * c)
    x, dy = (2 * rng.normal(0, 1, (rows, c)) + 1).astype(f32), rng.normal(0, 1, (rows, c)).astype(f32)
    return x, dy, rng.normal(0, 1, c).astype(f32), rng.normal(0, 1, c).astype(f32)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-5 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_layer_norm(kernels, rows, c, affine):
    x, dy, gamma, beta = drawn(rows, c)
    scale = (gamma, beta) if affine else (None, None)
    y, dx, d_gamma = np.zeros_like(x), dy.copy(), np.zeros(c, f32)
    exact = x.astype(float)
    rstd = 1 / np.sqrt(exact.var(1, keepdims=True) + EPS)
    hat = (exact - exact.mean(1, keepdims=True)) * rstd
    kernels.call("tl_layer_norm_f32", x, *scale, EPS, rows, c, y, out=[y])
    close(y, hat * gamma + beta if affine else hat)
    kernels.call("tl_layer_norm_scale_grad", dy, x, EPS, rows, c, d_gamma, out=[d_gamma])
    close(d_gamma, (dy * hat).sum(0))
    g = dy * gamma if affine else dy.astype(float)
    expected = rstd * (g - g.mean(1, keepdims=True) - hat * (g * hat).mean(1, keepdims=True))
    kernels.call("tl_layer_norm_input_grad", dx, x, scale[0], EPS, rows, c, dx, out=[dx])  # in place
    close(dx, expected)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("rows", "c"), SIZES[1:])
def test_batch_norm(kernels, rows, c, affine):
    x, dy, gamma, beta = drawn(rows, c)
    scale = (gamma, beta) if affine else (None, None)
    mean, var = np.linspace(-1, 1, c).astype(f32), np.linspace(0.5, 2, c).astype(f32)
    y, batch_mean, rstd, work = np.zeros_like(x), np.zeros(c, f32), np.zeros(c, f32), np.zeros(c, f32)
    exact = x.astype(float)
    hat = (exact - mean) / np.sqrt(var.astype(float) + EPS)
    kernels.call("tl_batch_norm_f32", x, *scale, mean, var, EPS, rows, c, y, work, out=[y])
    close(y, hat * gamma + beta if affine else hat)
    new_mean = 0.7 * mean + 0.3 * exact.mean(0)
    new_var = 0.7 * var + 0.3 * exact.var(0, ddof=1)
    memory = [mean, var, mean, var, batch_mean, rstd]  # running statistics in place
    s = Statistics(*map(pointer, memory), EPS, 0.3)
    out = [y, mean, var, batch_mean, rstd]
    kernels.call("tl_batch_norm_train_f32", x, *scale, s, rows, c, y, work, out=out)
    hat = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + EPS)
    for ours, expected in zip(out, (hat * gamma + beta if affine else hat, new_mean, new_var, exact.mean(0))):
        close(ours, expected)
    d_gamma, d_beta, dx = np.zeros(c, f32), dy.sum(0), dy.copy()
    kernels.call("tl_batch_norm_scale_grad", dy, x, batch_mean, rstd, rows, c, d_gamma, work, out=[d_gamma])
    close(d_gamma, (dy * hat).sum(0))
    sides = (scale[0], batch_mean, rstd, d_gamma, d_beta)
    kernels.call("tl_batch_norm_input_grad", dx, x, *sides, rows, c, dx, out=[dx])
    expected = (dy - dy.mean(0) - hat * (dy * hat).mean(0)) / np.sqrt(exact.var(0) + EPS)
    close(dx, expected * gamma if affine else expected)
