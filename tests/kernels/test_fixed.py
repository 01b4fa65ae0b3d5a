"""Fixed-point kernels against exact rational arithmetic: identical integers, the same bits in every build."""

import ctypes
from ctypes import c_int, c_int32, c_void_p

import numpy as np
import pytest

from tests.kernels import reference as ref
from tests.kernels.drawing import SEEDS, depthwise_scratch, prefix, random_shape, scratch, shape_and_scratch
from tests.kernels.reference import Bias, bits, f32, pointer

AWAY, UP, RESCALED = range(3)


class Fixed(ctypes.Structure):
    _fields_ = [("rescale", c_void_p), ("lo", c_int32), ("hi", c_int32), ("once", c_int32)]


class Side(ctypes.Structure):
    _fields_ = [("zero", c_int32), ("multiplier", c_int32), ("shift", c_int32)]


class Mean(ctypes.Structure):
    _fields_ = [("kind", c_int)] + [(n, c_int32) for n in ("x_zero", "multiplier", "shift", "y_zero")]


def away_from_zero(numerator: int, denominator: int) -> int:
    """The integer nearest to a fraction, ties away from zero."""
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return size if numerator >= 0 else -size


def half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def product(x: int, multiplier: int, shift: int) -> int:
    """x * multiplier * 2^(shift - 31), rounded twice."""
    x = x << max(shift, 0)
    x = (x + 2**31) % 2**32 - 2**31
    return away_from_zero(half_up(x * multiplier, 2**31), 1 << max(-shift, 0))


def product_once(x: int, multiplier: int, shift: int) -> int:
    return half_up(x * multiplier, 1 << (31 - shift))


def each(function, x, multiplier, shift):
    return np.vectorize(lambda *a: function(*map(int, a)), otypes=[np.int64])(x, multiplier, shift)


def random_factors(rng, size, of):
    """Multipliers and shifts that bring sums of about `of` to about 60."""
    mantissa, shift = np.frexp(rng.uniform(0.5, 2, size) * 60 / (of + 1))
    multiplier = np.minimum(np.rint(mantissa * 2**31), 2**31 - 1).astype(np.int32)
    return np.array([multiplier, shift.astype(np.int32)], np.int32)


def clamped(v, zero, lo, hi):
    return np.clip(v + zero, lo, hi).astype(np.int8), bits((v + zero >= lo) & (v + zero <= hi))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_convolution_with_asymmetric_weights_is_exact(kernels, seed, depthwise):
    rng = np.random.default_rng(seed)
    s, work = shape_and_scratch(rng, depthwise, seed)
    x = rng.integers(-128, 128, (s.n, s.h, s.w, s.c), dtype=np.int8)
    x_zero, y_zero, w_zero = (int(v) for v in rng.integers(-128, 128, 3))
    lo, hi = sorted(int(v) for v in rng.integers(-128, 128, 2)) if seed % 2 else (-128, 127)
    w = ref.random_weights(rng, s)
    w.struct.zero = w_zero
    acc = ref.conv(s, x.astype(np.int64) - x_zero, w.values - w_zero).astype(np.int64)
    bias = rng.integers(-5000, 5000, s.o, dtype=np.int32)
    bias[rng.integers(0, s.o)] = rng.choice([-(2**31), 2**31 - 1])
    master = (bias.clip(-5000, 5000) + rng.uniform(-0.4, 0.4, s.o)).astype(f32)
    b, added = (
        (Bias(pointer(bias), None), bias) if seed % 3 else (Bias(None, pointer(master)), np.rint(master))
    )
    rescale = random_factors(rng, s.o, np.abs(acc).mean())
    once = seed % 4 == 0
    total = (acc + added.astype(np.int64)).astype(np.int32)
    v = each(product_once if once else product, total, *rescale)
    y, mask = np.zeros(v.shape, np.int8), np.full((v.size + 7) // 8, 255, np.uint8)
    to = Fixed(pointer(rescale), lo, hi, int(once))
    name, arguments = prefix(depthwise) + "_s8_fixed", (s, x, x_zero, w.struct, b, to, y_zero, y)
    kernels.call(name, *arguments, mask, work, out=[y, mask])
    want, passes = clamped(v, y_zero, lo, hi)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(mask, passes)
    kernels.call(name, *arguments, None, work, out=[y])
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_input_gradient_reads_centered_weights(kernels, seed, depthwise):
    rng = np.random.default_rng(seed)
    s = random_shape(rng, depthwise)
    work = depthwise_scratch(s) if depthwise else scratch(4096)
    w = ref.random_weights(rng, s)
    w.struct.zero = int(rng.integers(-128, 128))
    dy = rng.integers(-8, 8, (s.n, s.oh, s.ow, s.o)).astype(f32)
    dx = np.full((s.n, s.h, s.w, s.c), np.nan, f32)
    kernels.call(prefix(depthwise) + "_input_grad", s, dy, w.struct, dx, 0, work, out=[dx])
    np.testing.assert_array_equal(dx, ref.conv_input_grad(s, dy, w.values - w.struct.zero))


@pytest.mark.parametrize("count", [1, 8, 37])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(6))
def test_sum_and_difference(kernels, seed, sign, count):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-128, 128, (2, count), dtype=np.int8)
    sides = [Side(int(rng.integers(-128, 128)), *map(int, random_factors(rng, None, 100))) for _ in range(3)]
    sides[0].shift = sides[1].shift = -1
    sides[2].shift -= 20
    sides[1].multiplier *= sign
    v = np.zeros(count, np.int64)
    for x, side in ((a, sides[0]), (b, sides[1])):
        v += each(product, (x.astype(int) - side.zero) << 20, side.multiplier, side.shift)
    v = each(product, v, sides[2].multiplier, sides[2].shift)
    lo, hi = (-90, 70) if seed % 2 else (-128, 127)
    y, mask = np.zeros(count, np.int8), np.full((count + 7) // 8, 255, np.uint8)
    kernels.call("tl_add_s8_fixed", a, sides[0], b, sides[1], sides[2], lo, hi, y, mask, count, out=[y, mask])
    want, passes = clamped(v, sides[2].zero, lo, hi)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(mask, passes)


@pytest.mark.parametrize("gate", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_product(kernels, seed, gate):
    rng = np.random.default_rng(seed)
    batch, positions, channels = 2, 5, 11
    a = rng.integers(-128, 128, (batch, positions, channels), dtype=np.int8)
    b = rng.integers(-128, 128, (batch, 1 if gate else positions, channels), dtype=np.int8)
    za, zb = (int(v) for v in rng.integers(-128, 128, 2))
    of_y = Side(int(rng.integers(-128, 128)), *map(int, random_factors(rng, None, 5000)))
    v = each(product, (a.astype(int) - za) * (b.astype(int) - zb), of_y.multiplier, of_y.shift)
    y, mask = np.zeros(a.shape, np.int8), np.full((a.size + 7) // 8, 255, np.uint8)
    sizes = (batch, positions, channels)
    kernels.call("tl_mul_s8_fixed", a, za, b, zb, gate, of_y, -100, 99, y, mask, *sizes, out=[y, mask])
    want, passes = clamped(v, of_y.zero, -100, 99)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(mask, passes)


@pytest.mark.parametrize("kind", [AWAY, UP, RESCALED])
@pytest.mark.parametrize("seed", range(10))
def test_means(kernels, seed, kind):
    rng = np.random.default_rng(seed)
    s = random_shape(rng)
    s.o = s.groups = s.c
    s.dh = s.dw = 1
    s.pt, s.pl = min(s.pt, s.kh - 1), min(s.pl, s.kw - 1)
    s.oh, s.ow = max(1, (s.h + s.pt - s.kh) // s.sh + 1), max(1, (s.w + s.pl - s.kw) // s.sw + 1)
    x = rng.integers(-128, 128, (s.n, s.h, s.w, s.c), dtype=np.int8)
    ones = np.ones((s.c, s.kh, s.kw, 1))
    total = ref.conv(s, x.astype(np.int64), ones)
    count = np.broadcast_to(ref.conv(s, np.ones_like(x, np.int64), ones), total.shape)
    factor = [int(v) for v in random_factors(rng, None, 60 * s.kh * s.kw)]
    mean = Mean(kind, int(rng.integers(-128, 128)), *factor, int(rng.integers(-128, 128)))
    if kind == RESCALED:
        v = each(product, total - count * mean.x_zero, mean.multiplier, mean.shift) + mean.y_zero
    else:
        rule = {AWAY: away_from_zero, UP: half_up}[kind]
        v = np.vectorize(lambda t, n: rule(int(t), int(n)), otypes=[np.int64])(total, count)
    y = np.zeros(total.shape, np.int8)
    kernels.call("tl_avgpool_s8_fixed", s, x, mean, y, out=[y])
    np.testing.assert_array_equal(y, ref.saturate(v))
