"""Random shapes for kernels, their scratch, and how close floats must be."""

import numpy as np

from tests.kernels.reference import ConvShape

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
