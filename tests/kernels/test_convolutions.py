"""Convolution kernels against numpy: integers identical, floats within 1e-5, the same bits in every build."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import reference as ref
from tests.kernels.drawing import (
    CONV_SCRATCH,
    SEEDS,
    close,
    depthwise_scratch,
    prefix,
    random_shape,
    scratch,
    shape_and_scratch,
)
from tests.kernels.reference import Bias, ConvShape, GradX, Update, bits, f32, pointer


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


@pytest.mark.parametrize("seed", SEEDS)
def test_depthwise_int8_convolution_over_its_own_operand(kernels, seed):
    rng = np.random.default_rng(seed)
    s = shape_of_equal_extents(rng)
    x = rng.integers(-128, 128, (s.n, s.h, s.w, s.c), dtype=np.int8)
    w = ref.random_weights(rng, s)
    bias = rng.integers(-5000, 5000, s.o, dtype=np.int32)
    scale = rng.uniform(1e-3, 2e-2, s.o).astype(f32)
    y, d = np.zeros_like(x), x.copy()
    masks = [np.full((x.size + 7) // 8, 255, np.uint8) for _ in range(2)]
    layer = (-5, w.struct, Bias(pointer(bias)), scale, 3)
    kernels.call("tl_depthwise_s8", s, x, *layer, y, masks[0], depthwise_scratch(s), out=[y, masks[0]])
    work = scratch(16 * (4 * s.kh * s.kw + s.h * s.w))
    kernels.call("tl_depthwise_s8", s, d, *layer, d, masks[1], work, out=[d, masks[1]])
    assert d.tobytes() == y.tobytes()
    assert masks[0].tobytes() == masks[1].tobytes()


def shape_of_equal_extents(rng):
    """A depthwise layer of stride 1 whose result is as large as its input."""
    c, k, dilation = (int(v) for v in (rng.integers(2, 40), rng.choice([1, 3, 5]), rng.integers(1, 3)))
    n, h, w = (int(v) for v in rng.integers(1, 10, 3))
    pad = [int(rng.integers(0, (k - 1) * dilation + 1)) for _ in range(2)]
    return ConvShape(n, h, w, c, h, w, c, k, k, 1, 1, *pad, dilation, dilation, c)


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
    s = shape_of_equal_extents(rng)
    dy = rng.normal(0, 1, (s.n, s.h, s.w, s.c)).astype(f32)
    w = ref.random_weights(rng, s, kinds=(ref.S8, ref.F32_MASTER, ref.F32))
    apart, d = np.empty_like(dy), dy.copy()
    kernels.call("tl_depthwise_input_grad", s, dy, w.struct, apart, 0, depthwise_scratch(s), out=[apart])
    work = scratch(64 * (s.kh * s.kw + ((s.kh - 1) * s.dh + 1) * s.w))
    kernels.call("tl_depthwise_input_grad_inplace", s, d, w.struct, work, out=[d])
    assert d.tobytes() == apart.tobytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_input_gradient_of_some_channels(kernels, seed):
    rng = np.random.default_rng(seed)
    s = random_shape(rng, deep=seed % 5 == 4)
    s.c, s.o, s.groups = s.c // s.groups, s.o // s.groups, 1
    first = int(rng.integers(0, s.c))
    count = int(rng.integers(1, s.c - first + 1))
    dy = rng.normal(0, 1, (s.n, s.oh, s.ow, s.o)).astype(f32)
    w = ref.random_weights(rng, s, kinds=(ref.S8, ref.F32_MASTER, ref.F32))
    dx = np.full((s.n, s.h, s.w, s.c), np.nan, f32)
    kernels.call("tl_conv_input_grad", s, dy, w.struct, dx, 0, scratch(CONV_SCRATCH), out=[dx])
    some = np.full((s.n, s.h, s.w, count), np.nan, f32)
    operands = (s, dy, w.struct, first, count, some, scratch(CONV_SCRATCH))
    kernels.call("tl_conv_input_grad_slice", *operands, out=[some])
    assert some.tobytes() == np.ascontiguousarray(dx[..., first : first + count]).tobytes()


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


@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_masked_gradients_of_some_channels(kernels, positions, channels, seed, eights):
    rng = np.random.default_rng(seed)
    step = 8 if eights and channels >= 8 else 1
    channels = channels // step * step
    first = int(rng.integers(0, channels // step)) * step
    count = int(rng.integers(1, channels - first + 1))
    g = rng.normal(0, 1, (positions, channels)).astype(f32)
    scale, passes = rng.uniform(0, 2, channels).astype(f32), rng.random(g.shape) < 0.5
    some = slice(first, first + count)
    place = ref.ChannelSlice(positions, channels, first, count)
    for name, factor, want in [
        ("tl_requantize_grad_slice", scale, np.where(passes, g * scale, 0)),
        ("tl_mask_grad_slice", float(scale[0]), np.where(passes, g * scale[0], 0)),
    ]:
        d = g[:, some].copy()
        kernels.call(name, d, bits(passes), factor, place, out=[d])
        np.testing.assert_array_equal(d, want[:, some].astype(f32))


# --------------------------------------------------------------------------------------------------- updates
