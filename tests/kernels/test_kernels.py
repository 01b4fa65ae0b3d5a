"""Every kernel against numpy: integers identical, floats within 1e-5, the same bits in every build."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import reference as ref
from tests.kernels.reference import Bias, ConvShape, GradX, Update, bits, f32, pointer

SEEDS = range(30)
CONV_SCRATCH = 4096


def close(got, want, tolerance=1e-5):
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(
        got, want, rtol=1e-5, atol=tolerance * (np.abs(want).max() if want.size else 0)
    )


def scratch(byte_count):
    return np.full(byte_count // 8, np.nan)


def random_shape(rng, depthwise=False, deep=False) -> ConvShape:
    kh, kw, sh, sw, dh, dw = (int(rng.integers(1, high)) for high in (4, 4, 3, 3, 3, 3))
    if rng.random() < 0.3:
        kh = kw = 1
    pt, pl, pb, pr = (int(v) for v in rng.integers(0, 3, 4))
    h = int(rng.integers(max(1, (kh - 1) * dh + 1 - pt - pb), 10))
    w = int(rng.integers(max(1, (kw - 1) * dw + 1 - pl - pr), 10))
    groups = 1 if deep else int(rng.choice([1, 1, 2, 3]))
    cg, og = int(rng.integers(70, 400)) if deep else int(rng.integers(1, 20)), int(rng.integers(1, 40))
    c, o = groups * cg, groups * og
    if depthwise:
        c = o = groups = int(rng.integers(2, 40))
    oh, ow = (h + pt + pb - (kh - 1) * dh - 1) // sh + 1, (w + pl + pr - (kw - 1) * dw - 1) // sw + 1
    return ConvShape(int(rng.integers(1, 3)), h, w, c, oh, ow, o, kh, kw, sh, sw, pt, pl, dh, dw, groups)


def depthwise_scratch(s):
    return scratch(64 * s.kh * s.kw)


def prefix(depthwise):
    return "tl_depthwise" if depthwise else "tl_conv"


def shape_and_scratch(rng, depthwise, seed):
    s = random_shape(rng, depthwise, deep=seed % 5 == 4)
    return s, depthwise_scratch(s) if depthwise else scratch(CONV_SCRATCH)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_int8_convolution_is_exact(kernels, seed, depthwise):
    rng = np.random.default_rng(seed)
    s, work = shape_and_scratch(rng, depthwise, seed)
    x = rng.integers(-128, 128, (s.n, s.h, s.w, s.c), dtype=np.int8)
    x_zero, y_zero = (int(v) for v in rng.integers(-128, 128, 2))
    w = ref.random_weights(rng, s)
    acc = ref.conv(s, x.astype(np.int64) - x_zero, w.values)
    bias = rng.integers(-5000, 5000, s.o, dtype=np.int32)
    bias[rng.integers(0, s.o)] = rng.choice([-(2**31), 2**31 - 1])
    master = (bias + rng.uniform(-0.4, 0.4, s.o)).astype(f32)
    kind = rng.integers(0, 3)
    b = [Bias(), Bias(pointer(bias), None), Bias(None, pointer(master))][kind]
    added = [np.zeros(s.o, f32), bias.astype(f32), master][kind]
    scale = (rng.uniform(0.5, 2, s.o) * 60 / (np.abs(acc).mean() + 1)).astype(f32)
    v = ref.requantize(acc, added, scale, y_zero)
    y = np.zeros(v.shape, np.int8)
    mask = np.full((y.size + 7) // 8, 255, np.uint8)
    arguments = (s, x, x_zero, w.struct, b, scale, y_zero, y)
    kernels.call(prefix(depthwise) + "_s8", *arguments, mask, work, out=[y, mask])
    np.testing.assert_array_equal(y, ref.saturate(v))
    np.testing.assert_array_equal(mask, bits((v >= -128) & (v <= 127)))
    kernels.call(prefix(depthwise) + "_s8", *arguments, None, work, out=[y])
    np.testing.assert_array_equal(y, ref.saturate(v))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_float_convolution(kernels, seed, depthwise):
    check_float_convolution(kernels, seed, depthwise)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_fused_float_convolution(fused_kernels, seed, depthwise):
    check_float_convolution(fused_kernels, seed, depthwise)


def check_float_convolution(kernels, seed, depthwise):
    rng = np.random.default_rng(seed)
    s, work = shape_and_scratch(rng, depthwise, seed)
    x = rng.normal(0, 1, (s.n, s.h, s.w, s.c)).astype(f32)
    w = ref.random_weights(rng, s, kinds=(ref.S8, ref.F32_MASTER, ref.F32))
    bias = rng.normal(0, 1, s.o).astype(f32)
    v = ref.conv(s, x.astype(np.float64), w.values) + bias
    lo, hi = (-np.inf, np.inf) if seed % 2 else (0.0, float(np.abs(v).mean()))
    y = np.zeros(v.shape, f32)
    mask = np.full((y.size + 7) // 8, 255, np.uint8)
    b = Bias(None, pointer(bias))
    kernels.call(prefix(depthwise) + "_f32", s, x, w.struct, b, lo, hi, y, mask, work, out=[y, mask])
    close(y, np.clip(v, lo, hi))
    np.testing.assert_array_equal(mask, bits((y > lo) & (y < hi)))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_input_gradient(kernels, seed, depthwise):
    rng = np.random.default_rng(seed)
    s, work = shape_and_scratch(rng, depthwise, seed)
    dy = rng.normal(0, 1, (s.n, s.oh, s.ow, s.o)).astype(f32)
    w = ref.random_weights(rng, s, kinds=(ref.S8, ref.F32_MASTER, ref.F32))
    want = ref.conv_input_grad(s, dy, w.values)
    dx = np.full((s.n, s.h, s.w, s.c), np.nan, f32)
    kernels.call(prefix(depthwise) + "_input_grad", s, dy, w.struct, dx, 0, work, out=[dx])
    close(dx, want)
    old = rng.normal(0, 1, dx.shape).astype(f32)
    dx[...] = old
    kernels.call(prefix(depthwise) + "_input_grad", s, dy, w.struct, dx, 1, work, out=[dx])
    close(dx, old + want)


@pytest.mark.parametrize("seed", SEEDS)
def test_input_gradient_over_its_own_operand(kernels, seed):
    rng = np.random.default_rng(seed)
    c, k, dilation = (int(v) for v in (rng.integers(2, 40), rng.choice([1, 3, 5]), rng.integers(1, 3)))
    n, h, w_ = (int(v) for v in rng.integers(1, 10, 3))
    pad = [int(rng.integers(0, (k - 1) * dilation + 1)) for _ in range(2)]
    s = ref.ConvShape(n, h, w_, c, h, w_, c, k, k, 1, 1, *pad, dilation, dilation, c)
    dy = rng.normal(0, 1, (n, h, w_, c)).astype(f32)
    w = ref.random_weights(rng, s, kinds=(ref.S8, ref.F32_MASTER, ref.F32))
    apart, d = np.empty_like(dy), dy.copy()
    kernels.call("tl_depthwise_input_grad", s, dy, w.struct, apart, 0, depthwise_scratch(s), out=[apart])
    work = scratch(64 * (k * k + ((k - 1) * dilation + 1) * w_))
    kernels.call("tl_depthwise_input_grad_inplace", s, d, w.struct, work, out=[d])
    assert d.tobytes() == apart.tobytes()


def stored_gradient(rows, row_len, scale=None):
    gradient = np.full((rows, row_len), np.nan, f32)
    return gradient, Update(rule=ref.STORE, w=pointer(gradient), row_len=row_len, row_scale=pointer(scale))


def saved_input(rng, shape):
    """An int8 or a float input: struct, centred values, what must stay alive."""
    if rng.random() < 0.7:
        x, zero = rng.integers(-128, 128, shape, dtype=np.int8), int(rng.integers(-128, 128))
        return GradX(pointer(x), None, zero, shape[3]), x.astype(np.float64) - zero, x
    x = rng.normal(0, 1, shape).astype(f32)
    return GradX(None, pointer(x), 99, shape[3]), x.astype(np.float64), x


@pytest.mark.parametrize("seed", SEEDS)
def test_weight_gradient_of_the_updated_channels(kernels, seed):
    rng = np.random.default_rng(seed)
    s = random_shape(rng, deep=seed % 5 == 4)
    k = int(rng.integers(1, s.c + 1)) if s.groups == 1 else s.c
    x, values, _keep = saved_input(rng, (s.n, s.h, s.w, k))
    dy = rng.normal(0, 1, (s.n, s.oh, s.ow, s.o)).astype(f32)
    scale = rng.uniform(0.5, 2, s.o).astype(f32)
    scale[0] = 0
    want = ref.conv_weight_grad(s, values, dy).reshape(s.o, -1) * scale[:, None]
    gradient, update = stored_gradient(s.o, want.shape[1], scale)
    kernels.call("tl_conv_weight_grad", s, x, dy, update, scratch(CONV_SCRATCH), out=[gradient])
    close(gradient, want)


@pytest.mark.parametrize("seed", SEEDS)
def test_depthwise_weight_gradient_of_the_updated_channels(kernels, seed):
    rng = np.random.default_rng(seed)
    s = random_shape(rng, depthwise=True)
    channels = (
        np.sort(rng.permutation(s.c)[: rng.integers(1, s.c + 1)]).astype(np.uint16) if seed % 2 else None
    )
    k = s.c if channels is None else len(channels)
    x, values, _keep = saved_input(rng, (s.n, s.h, s.w, k))
    dy = rng.normal(0, 1, (s.n, s.oh, s.ow, s.o)).astype(f32)
    sub = ConvShape.from_buffer_copy(s)
    sub.c = sub.o = sub.groups = k
    want = ref.conv_weight_grad(sub, values, dy if channels is None else dy[..., channels]).reshape(k, -1)
    gradient, update = stored_gradient(k, s.kh * s.kw)
    kernels.call(
        "tl_depthwise_weight_grad", s, x, dy, channels, k, update, depthwise_scratch(s), out=[gradient]
    )
    close(gradient, want)


@pytest.mark.parametrize("positions,channels", [(1, 1), (5, 70), (64, 128), (9, 3)])
def test_bias_gradient(kernels, positions, channels):
    rng = np.random.default_rng(channels)
    dy = rng.normal(0, 1, (positions, channels)).astype(f32)
    scale = rng.uniform(0, 2, channels).astype(f32)
    gradient, update = stored_gradient(1, channels, scale)
    kernels.call("tl_bias_grad", positions, channels, dy, update, scratch(256), out=[gradient])
    close(gradient[0], dy.astype(np.float64).sum(0) * scale)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_masked_gradients_may_be_in_place(kernels, positions, channels, seed, masked, in_place):
    rng = np.random.default_rng(seed)
    g = rng.normal(0, 1, (positions, channels)).astype(f32)
    scale = rng.uniform(0, 2, channels).astype(f32)
    passes = rng.random(g.shape) < 0.5 if masked else np.ones(g.shape, bool)
    mask = bits(passes) if masked else None
    for name, factor, want in [
        ("tl_requantize_grad", scale, np.where(passes, g * scale, 0)),
        ("tl_mask_grad", float(scale[0]), np.where(passes, g * scale[0], 0)),
    ]:
        source = g.copy()
        out = source if in_place else np.full_like(g, np.nan)
        sizes = (positions, channels) if name == "tl_requantize_grad" else (g.size,)
        kernels.call(name, out, source, mask, factor, *sizes, out=[out])
        np.testing.assert_array_equal(out, want.astype(f32))


# --------------------------------------------------------------------------------------------------- updates


def optimizer_step(rule, u, w, g, m, v):
    """The fp32 step s, operation by operation as documented; m and v are updated in place."""
    lr, wd = f32(u.lr), f32(u.weight_decay)
    if rule == ref.SGD:
        return lr * (g + wd * w)
    if rule == ref.MOMENTUM:
        m[...] = f32(u.momentum) * m + (g + wd * w)
        return lr * m
    b1, b2 = f32(u.beta1), f32(u.beta2)
    m[...] = b1 * m + (f32(1) - b1) * g
    v[...] = b2 * v + (f32(1) - b2) * (g * g)
    return lr * ((m / f32(u.bias1)) / (np.sqrt(v / f32(u.bias2)) + f32(u.eps)) + wd * w)


CASES = [(ref.T_F32, ref.FP32)] + [
    (stored, master)
    for stored in (ref.T_S8, ref.T_S32)
    for master in (ref.RESIDUAL, ref.STOCHASTIC, ref.NEAREST)
]


@pytest.mark.parametrize("rule", [ref.SGD, ref.MOMENTUM, ref.ADAMW])
@pytest.mark.parametrize("stored,master", CASES)
@pytest.mark.parametrize("size", [0.01, 3.0, 500.0])
def test_a_step_is_stored_as_documented(kernels, rule, stored, master, size):
    rng = np.random.default_rng(7)
    rows, row_len = 5, 37
    shape = (rows, row_len)
    w = {
        ref.T_F32: rng.normal(0, 1, shape).astype(f32),
        ref.T_S8: rng.integers(-128, 128, shape).astype(np.int8),
        ref.T_S32: rng.integers(-(2**20), 2**20, shape).astype(np.int32),
    }[stored]
    if stored == ref.T_S32:
        w[0, :2] = -(2**31), 2**31 - 1
    fraction = rng.integers(-128, 128, shape).astype(np.int8)
    fraction[w == np.iinfo(np.int8).min] = 0
    m, v = rng.normal(0, size, shape).astype(f32), rng.uniform(0, size, shape).astype(f32)
    grad = rng.normal(0, size, shape).astype(f32)
    scale = np.array([1, 0, 2, 0.5, 3], f32)
    u = Update(rule, master, stored, *map(pointer, (w, fraction, m, v)), row_len, pointer(scale),
               0.7, 0.9, 0.9, 0.99, 1e-3, 0.01, 0.5, 0.25, 1, 2, 3)  # fmt: skip
    want_w, want_fraction, want_m, want_v = w.copy(), fraction.copy(), m.copy(), v.copy()
    value = w.astype(f32)
    if master == ref.RESIDUAL:
        value = value + fraction.astype(f32) * f32(1 / 256)
    random = ref.uniform(1, 2, 3, np.arange(rows * row_len)).reshape(shape)
    s = optimizer_step(rule, u, value, grad * scale[:, None], want_m, want_v)
    want_w, want_fraction = ref.stored_step(stored, master, want_w, want_fraction, s, random)
    for now, old in [(want_w, w), (want_fraction, fraction), (want_m, m), (want_v, v)]:
        now[1] = old[1]  # the dead row is not touched
    out = [w, fraction, m, v]
    first = [array.copy() for array in out]
    kernels.call("tl_apply", u, grad, rows, 1.0, scratch(128), out=out)
    np.testing.assert_array_equal(w, want_w)
    np.testing.assert_array_equal(fraction, want_fraction)
    if rule != ref.SGD:
        np.testing.assert_array_equal(m, want_m)
    if rule == ref.ADAMW:
        np.testing.assert_array_equal(v, want_v)
    whole = [array.copy() for array in out]
    for array, old in zip(out, first):
        array[...] = old
    for row in range(rows):  # in pieces, in another order: the same
        for col in (20, 0):
            count = row_len - 20 if col else 20
            kernels.call("tl_update_row", u, row, col, grad[row, col : col + count].copy(), count, out=out)
    for array, same in zip(out, whole):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("stored,master", CASES)
def test_a_step_that_is_not_a_number_leaves_the_value(kernels, stored, master):
    w = np.array([5, 6, 7], {ref.T_F32: f32, ref.T_S8: np.int8, ref.T_S32: np.int32}[stored])
    fraction = np.zeros(3, np.int8)
    u = Update(
        rule=ref.SGD,
        master=master,
        stored=stored,
        w=pointer(w),
        fraction=pointer(fraction),
        row_len=3,
        lr=1.0,
    )
    kernels.call("tl_update_vec", u, 0, np.array([np.nan, np.inf, -np.inf], f32), 3, out=[w, fraction])
    low, high = {ref.T_F32: (-np.inf, np.inf), ref.T_S8: (-128, 127), ref.T_S32: (-(2**31), 2**31 - 1)}[
        stored
    ]
    assert list(w) == [5, low, high]


@pytest.mark.parametrize("stored", [ref.T_S8, ref.T_S32])
@pytest.mark.parametrize("master", [ref.RESIDUAL, ref.STOCHASTIC])
def test_small_steps_are_unbiased(kernels, stored, master):
    count, step = 100_000, f32(0.003)
    w = np.zeros(count, {ref.T_S8: np.int8, ref.T_S32: np.int32}[stored])
    fraction = np.zeros(count, np.int8)
    u = Update(
        rule=ref.SGD, master=master, stored=stored, w=pointer(w), fraction=pointer(fraction), row_len=count
    )
    u.lr, u.seed = 1.0, 11
    kernels.call("tl_update_vec", u, 0, np.full(count, step), count, out=[w, fraction])
    mean = (w + fraction / 256).mean()
    assert abs(mean + step) < 6 * np.sqrt(step / count)


def test_gradients_accumulate_then_apply(kernels):
    rng = np.random.default_rng(0)
    grads = rng.normal(0, 1, (3, 4, 70)).astype(f32)
    total = np.zeros((4, 70), f32)
    gather = Update(rule=ref.ACCUMULATE, w=pointer(total), row_len=70)
    for g in grads:
        for row in range(4):
            kernels.call("tl_update_row", gather, row, 0, g[row].copy(), 70, out=[total])
    close(total, grads.astype(float).sum(0))
    w = np.zeros((4, 70), f32)
    u = Update(rule=ref.SGD, w=pointer(w), row_len=70, lr=0.5)
    kernels.call("tl_apply", u, total, 4, 1 / 3, scratch(128), out=[w])
    close(w, -0.5 * grads.astype(float).mean(0))
    w[...] = 0
    kernels.call("tl_apply_vec", u, total, 280, 1 / 3, scratch(128), out=[w])
    close(w, -0.5 * grads.astype(float).mean(0))


# ---------------------------------------------------------------------------------------- element by element


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


def gathered(s, x):
    """[n, oh, ow, taps, c] under the windows and which of them lie inside."""
    parts = list(ref.taps(s, x))
    return np.stack([part[5] for part in parts], 3), np.stack([part[4] for part in parts], 2)


def pool_shape(rng):
    while True:
        s = random_shape(rng, depthwise=True)
        if all(gathered(s, np.zeros((s.n, s.h, s.w, s.c)))[1].any(2).reshape(-1)):
            return s


@pytest.mark.parametrize("include_pad", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_average_pooling(kernels, seed, include_pad):
    rng = np.random.default_rng(seed)
    s, zero = pool_shape(rng), 9
    x = rng.integers(-128, 128, (s.n, s.h, s.w, s.c), dtype=np.int8)
    under, inside = gathered(s, x.astype(np.int64))
    count = np.full(inside.shape[:2], s.kh * s.kw) if include_pad else inside.sum(2)
    total = under.sum(3) + (zero * (~inside).sum(2) if include_pad else 0 * count)[None, :, :, None]
    y = np.zeros((s.n, s.oh, s.ow, s.c), np.int8)
    kernels.call("tl_avgpool_s8", s, x, zero, include_pad, y, out=[y])
    np.testing.assert_array_equal(y, np.rint(total.astype(f32) / count.astype(f32)[None, :, :, None]))
    z, floats = np.zeros(y.shape, f32), rng.normal(0, 1, x.shape).astype(f32)
    kernels.call("tl_avgpool_f32", s, floats, include_pad, z, out=[z])
    close(z, gathered(s, floats.astype(float))[0].sum(3) / count[None, :, :, None])
    dy, dx = rng.normal(0, 1, y.shape).astype(f32), np.full(x.shape, np.nan, f32)
    kernels.call("tl_avgpool_grad", s, dy, include_pad, dx, out=[dx])
    want = ref.conv_input_grad(s, dy / count[None, :, :, None], np.ones((s.c, s.kh, s.kw, 1)))
    close(dx, want)


@pytest.mark.parametrize("seed", SEEDS)
def test_max_pooling_and_its_first_winner(kernels, seed):
    rng = np.random.default_rng(seed)
    s = pool_shape(rng)
    x = rng.integers(-3, 3, (s.n, s.h, s.w, s.c), dtype=np.int8)
    under, _inside = gathered(s, x.astype(np.int64) + 1000)  # positive: the padding's 0 never wins
    winner = under.argmax(3)
    y, z = np.zeros((s.n, s.oh, s.ow, s.c), np.int8), np.zeros((s.n, s.oh, s.ow, s.c), f32)
    floats = x.astype(f32)
    kernels.call("tl_maxpool_s8", s, x, y, out=[y])
    kernels.call("tl_maxpool_f32", s, floats, z, out=[z])
    np.testing.assert_array_equal(y, under.max(3) - 1000)
    np.testing.assert_array_equal(z, under.max(3) - 1000)
    dy = rng.normal(0, 1, y.shape).astype(f32)
    want = np.zeros(x.shape)
    for tap, (_, _, rows, cols, _, _) in enumerate(ref.taps(s, x)):
        np.add.at(want, (slice(None), rows, cols), dy * (winner == tap))
    for s8, f in [(x, None), (None, floats)]:
        dx = np.full(x.shape, np.nan, f32)
        kernels.call("tl_maxpool_grad", s, s8, f, dy, dx, out=[dx])
        close(dx, want)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


UNARY = [
    (0, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    (1, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    (2, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), lambda x: np.where(abs(x) < 3, x / 3 + 0.5, x > 0)),
    (3, lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: np.where(abs(x) < 2.5, 0.2, 0)),
    (4, lambda x: np.clip(x, 0.2, 0.5), lambda x: (x > f32(0.2)) & (x < f32(0.5))),
]


@pytest.mark.parametrize("kind,function,slope", UNARY)
def test_unary_functions_and_gradients(kernels, kind, function, slope):
    x = np.concatenate([np.linspace(-12, 12, 997), np.linspace(-0.4, 0.4, 100), [-100, 100, 0]]).astype(f32)
    a, b = 0.2, 0.5
    y, mask = np.zeros_like(x), np.full((x.size + 7) // 8, 255, np.uint8)
    kernels.call("tl_unary_f32", kind, a, b, x, y, mask if kind == 4 else None, x.size, out=[y, mask])
    np.testing.assert_allclose(y, function(x.astype(np.float64)), rtol=1e-6, atol=1e-7)
    if kind == 4:
        np.testing.assert_array_equal(mask, bits((x > f32(a)) & (x < f32(b))))
    dy, dx = np.full_like(x, 2), np.zeros_like(x)
    kernels.call("tl_unary_grad_f32", kind, a, b, y if kind < 2 else x, dy, dx, x.size, out=[dx])
    np.testing.assert_allclose(dx, 2 * slope(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (5, 7, 9), (16, 300, 33), (3, 64, 16)])
def test_matrix_product(kernels, trans_a, trans_b, m, k, n):
    rng = np.random.default_rng(m)
    a = rng.normal(0, 1, (3, k, m) if trans_a else (3, m, k)).astype(f32)
    b = rng.normal(0, 1, (n, k) if trans_b else (k, n)).astype(f32)
    y = np.full((3, m, n), np.nan, f32)
    work = scratch(CONV_SCRATCH)
    kernels.call("tl_matmul_f32", 3, m, k, n, trans_a, trans_b, a, m * k, b, 0, y, m * n, work, out=[y])
    close(y, (a.swapaxes(1, 2) if trans_a else a).astype(float) @ (b.T if trans_b else b).astype(float))


# ---------------------------------------------------------------------------------------------------- losses


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("n,classes", [(1, 2), (4, 10), (3, 1)])
def test_softmax_and_its_cross_entropy(kernels, n, classes):
    rng = np.random.default_rng(n)
    z = rng.normal(0, 5, (n, classes)).astype(f32)
    label = rng.integers(0, classes, n).astype(np.int32)
    p, loss, dz, dy, dx = (
        softmax(z.astype(float)),
        np.zeros(1, f32),
        z.copy(),
        z[::-1].copy(),
        np.zeros_like(z),
    )
    y = np.zeros_like(z)
    kernels.call("tl_softmax_f32", z, n, classes, y, out=[y])
    close(y, p)
    kernels.call("tl_softmax_grad_f32", y, dy, n, classes, dx, out=[dx])
    np.testing.assert_allclose(dx, p * (dy - (dy * p).sum(1, keepdims=True)), atol=5e-6)
    kernels.call("tl_softmax_cross_entropy", z, label, n, classes, loss, out=[loss])
    np.testing.assert_allclose(loss[0], -np.log(p[np.arange(n), label]).mean(), rtol=1e-5, atol=1e-6)
    kernels.call("tl_softmax_cross_entropy_grad", dz, label, n, classes, dz, out=[dz])
    close(dz, (p - np.eye(classes)[label]) / n)


def test_sigmoid_cross_entropy_and_mean_square(kernels):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 5, (4, 6)).astype(f32)
    t = rng.random((4, 6)).astype(f32)
    loss, dz = np.zeros(1, f32), np.zeros_like(z)
    kernels.call("tl_sigmoid_cross_entropy", z, t, 4, 6, loss, out=[loss])
    close(loss, [(np.logaddexp(0, z.astype(float)) - z * t).sum() / 4])
    kernels.call("tl_sigmoid_cross_entropy_grad", z, t, 4, 6, dz, out=[dz])
    close(dz, (sigmoid(z.astype(float)) - t) / 4)
    kernels.call("tl_mse", z, t, 24, loss, out=[loss])
    close(loss, [((z.astype(float) - t) ** 2).mean()])
    kernels.call("tl_mse_grad", z, t, 24, dz, out=[dz])
    close(dz, 2 * (z.astype(float) - t) / 24)


# ----------------------------------------------------------------------------------------------------- shape


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


@pytest.mark.slow
@pytest.mark.skipif(bool(os.environ.get("TL_SANITIZE")), reason="is what runs the others")
def test_everything_runs_clean_under_the_sanitizers():
    libasan = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(libasan).exists():
        pytest.skip("no libasan")
    environment = dict(os.environ, TL_SANITIZE="1", LD_PRELOAD=libasan, ASAN_OPTIONS="detect_leaks=0")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent),
    ]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
