"""What happens to a gradient: stored, accumulated, or applied by an optimizer to every kind of tensor."""

import numpy as np
import pytest

from tests.kernels import reference as ref
from tests.kernels.drawing import close, scratch
from tests.kernels.reference import Update, f32, pointer


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
    for array, old in zip(out, first):
        array[...] = old
    for row in range(rows):  # each row as a tensor of its own: `first` says where it lies
        part = Update.from_buffer_copy(u)
        part.w, part.fraction, part.m, part.v = (pointer(a[row]) for a in (w, fraction, m, v))
        part.row_scale, part.first = pointer(scale[row:]), row * row_len
        kernels.call("tl_update_row", part, 0, 0, grad[row].copy(), row_len, out=out)
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
