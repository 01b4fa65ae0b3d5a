"""Kernels that move elements, and the scalar functions."""

import numpy as np
import pytest

from tests.kernels.reference import f32


@pytest.mark.parametrize("dtype", [np.int8, f32])
@pytest.mark.parametrize("perm", [(0,), (1, 0), (0, 2, 1), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_transpose(kernels, dtype, perm):
    dims = np.array([2, 3, 4, 5][: len(perm)], np.int32)
    x = np.random.default_rng(0).integers(-100, 100, dims).astype(dtype)
    y = np.zeros(x.transpose(perm).shape, dtype)
    kernels.call("tl_transpose", x.itemsize, len(perm), dims, np.array(perm, np.int32), x, y, out=[y])
    np.testing.assert_array_equal(y, x.transpose(perm))


@pytest.mark.parametrize("dtype", [np.int8, f32])
def test_pad_copy_and_take(kernels, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-100, 100, (2, 3, 4, 5)).astype(dtype)
    before, after = np.array([0, 1, 2, 0], np.int32), np.array([1, 0, 2, 3], np.int32)
    want = np.pad(x, list(zip(before, after)), constant_values=7)
    y = np.zeros(want.shape, dtype)
    kernels.call(
        "tl_pad", x.itemsize, np.array(x.shape, np.int32), before, after, np.array([7], dtype), x, y, out=[y]
    )
    np.testing.assert_array_equal(y, want)
    channels, size = np.array([0, 3, 4], np.uint16), x.itemsize
    y = np.zeros((2, 3, 4, 3), dtype)
    kernels.call("tl_take_channels", x, size, 24, 5, channels, 3, y, out=[y])
    np.testing.assert_array_equal(y, x[..., channels])
    y = np.zeros((2, 3, 4, 9), dtype)
    kernels.call("tl_copy_rows", y, 9 * size, x, 5 * size, 5 * size, 24, out=[y])
    np.testing.assert_array_equal(y, np.pad(x, [(0, 0)] * 3 + [(0, 4)]))


# ------------------------------------------------------------------------------------------------------ math


def units_in_the_last_place(got, want):
    return np.max(np.abs(got - want) / np.spacing(np.abs(want).astype(f32)).astype(np.float64))


def scalar(kernels, name, xs):
    import ctypes

    results = []
    for library in kernels.libraries.values():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
        results.append(np.array([function(float(x)) for x in xs], f32))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    return results[0]


@pytest.mark.parametrize(
    "name,exact,low,high,ulps",
    [
        ("tl_expf", np.exp, -87, 88.7, 2),
        ("tl_logf", np.log, 1e-30, 50, 2),
        ("tl_log1pf", np.log1p, 0, 1, 4),
        ("tl_tanhf", np.tanh, -9, 9, 4),
        ("tl_sqrtf", np.sqrt, 0, 1e9, 0.5),
    ],
)
def test_scalar_functions_are_accurate(kernels, name, exact, low, high, ulps):
    x = np.concatenate([np.linspace(low, high, 20_000), np.geomspace(1e-9, min(high, 1), 5_000)]).astype(f32)
    got = scalar(kernels, name, x)
    assert (
        units_in_the_last_place(got.astype(np.float64)[x != 0], exact(x.astype(np.float64))[x != 0]) <= ulps
    )
