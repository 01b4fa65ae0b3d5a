"""Pools, forward and backward."""

import numpy as np
import pytest

from tests.kernels import reference as ref
from tests.kernels.drawing import SEEDS, close, random_shape
from tests.kernels.reference import f32


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
