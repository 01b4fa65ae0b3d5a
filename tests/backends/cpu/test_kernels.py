"""Each kernel against the interpreter's arithmetic in float64: odd sizes, strides, pads, dilations, lanes.

Behind every array lies NaN, scratch is full of it, and every kernel runs split into 1, 2 and 3 parts.
"""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends.cpu import kernels as k
from trainlet.backends.cpu import winograd
from trainlet.backends.cpu.convolution import WEIGHTS_DEPTH, classes, tile_rows, transposed
from trainlet.backends.cpu.lines import line_floats
from trainlet.backends.cpu.target import native_isa
from trainlet.backends.cpu.weights import padded, panels, taps
from trainlet.backends.cpu.writer import CHUNKS
from trainlet.ir.ops.window import Window, correlate, correlate_input, correlate_weight

LANES = {"x86-64": 4, "x86-64-v3": 8}
NAMES = [name for name in LANES if native_isa() >= name]
pytestmark = pytest.mark.skipif(not NAMES, reason="the lanes are chosen by x86-64 levels")
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=NAMES or ["none"])
def built(request, tmp_path_factory):
    return k.library(tmp_path_factory.mktemp("kernels"), request.param), LANES[request.param]


@st.composite
def windows(draw, depthwise=False, kernel=(1, 2, 3, 5)):
    """Uneven windows; h, w as large as the kernel needs."""
    kh, kw = draw(st.sampled_from(kernel)), draw(st.sampled_from(kernel))
    sh, sw, dh, dw = (draw(st.integers(1, 2)) for _ in range(4))
    pt, pl, pb, pr = (draw(st.integers(0, 2)) for _ in range(4))
    h = draw(st.integers(max(1, dh * (kh - 1) + 1 - pt - pb), 11))
    w = draw(st.integers(max(1, dw * (kw - 1) + 1 - pl - pr), 13))
    c = draw(st.sampled_from([1, 3, 8, 16, 21, 40]))
    o = c if depthwise else draw(st.sampled_from([1, 5, 8, 24, 37]))
    oh, ow = (h + pt + pb - dh * (kh - 1) - 1) // sh + 1, (w + pl + pr - dw * (kw - 1) - 1) // sw + 1
    n, groups = draw(st.integers(1, 2)), c if depthwise else 1
    return Window(n, h, w, c, oh, ow, o, kh, kw, sh, sw, pt, pl, pb, pr, dh, dw, groups)


def drawn(s, seed):
    rng = np.random.default_rng(seed)
    x = k.floats(rng.normal(0, 1, (s.n, s.h, s.w, s.c)))
    w = k.floats(rng.normal(0, 1, (s.o, s.kh, s.kw, s.c // s.groups)))
    return rng, x, w, k.floats(rng.normal(0, 1, (s.n, s.oh, s.ow, s.o)))


def double(*arrays):
    return [a.astype(np.float64) for a in arrays]


@few
@given(st.integers(1, 60), st.integers(1, 600), st.integers(1, 50), st.sampled_from(k.ENDINGS), seeds)
def test_products(built, m, depth, n, kind, seed):
    library, lanes = built
    rng = np.random.default_rng(seed)
    a, w = k.floats(rng.normal(0, 1, (m, depth))), k.floats(rng.normal(0, 1, (n, depth)))
    packed, c, ending = (
        k.room(depth * padded(n, lanes)),
        k.floats(np.zeros((m, n))),
        k.Ending(rng, (m, n), kind),
    )
    pack = k.Pack(k.at(w), k.at(packed), depth, n, depth, 1)
    k.run(library, "tl_pack_panels", pack, packed)
    assert np.array_equal(packed[: depth * padded(n, lanes)], panels(w.T, lanes))
    g = k.Gemm(k.at(a), k.at(packed), k.at(c), m, depth, n, depth, 1, 0, n, 0, 0, ending.c(), None)
    ending.check(k.run(library, "tl_gemm_rows", g, c), np.matmul(*double(a, w.T)))


@few
@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 60), seeds)
def test_products_over_positions(built, o, positions, c, seed):
    rng = np.random.default_rng(seed)
    dy, x = k.floats(rng.normal(0, 1, (positions, o))), k.floats(rng.normal(0, 1, (positions, c)))
    dw, u = k.stored(o, c)
    plain = k.Ending(rng, (o, c), "plain").c()
    g = k.Gemm(
        k.at(dy), k.at(x), k.at(k.room(o * c)), o, positions, c, 1, o, c, c, 64, 0, plain, ctypes.pointer(u)
    )
    sums = k.room(o * c)
    g.c = k.at(sums)
    result, expected = k.run(built[0], "tl_gemm_columns", g, dw), np.matmul(*double(dy.T, x))
    assert np.abs(result - expected).max() <= 2e-6 * (np.abs(expected).max() + 1)
    sums = k.room(CHUNKS * o * c)
    g.c, g.update = k.at(sums), None
    t = k.Chunks(k.at(sums), None, o, c, c, ctypes.pointer(u))
    result = k.run_all(built[0], (("tl_gemm_chunks", g), ("tl_chunks_part", t)), dw)
    assert np.abs(result - expected).max() <= 2e-6 * (np.abs(expected).max() + 1)


@few
@given(windows(), st.sampled_from(k.ENDINGS), seeds)
def test_dense_forward(built, s, kind, seed):
    library, lanes = built
    rng, x, w, y = drawn(s, seed)
    depth, ending = s.kh * s.kw * s.c, k.Ending(rng, y.shape, kind)
    packed = k.floats(panels(w.reshape(s.o, depth).T, lanes))
    tiles = k.room(3 * (tile_rows(depth) * depth + lanes))
    d = k.Dense(k.shape(s), k.at(x), k.at(packed), k.at(y), ending.c(), k.at(tiles))
    ending.check(k.run(library, "tl_dense_rows", d, y), correlate(*double(x, w), s))


@few
@given(windows(), st.sampled_from(["plain", "keep", "only keep"]), seeds)
def test_dense_input_gradient_of_any_stride(built, s, kind, seed):
    library, lanes = built
    rng, x, w, dy = drawn(s, seed)
    ending, count = k.Ending(rng, x.shape, kind), s.kh * s.kw
    by_tap = w.reshape(s.o, count, s.c).transpose(1, 0, 2)
    parts = [panels(by_tap[used].reshape(-1, s.c), lanes) for used in classes(s) if used]
    packed, most = k.floats(np.concatenate(parts)), count * s.o
    tiles = k.room(3 * (tile_rows(most) * (most + s.c) + lanes))
    d = k.Dense(k.shape(s), k.at(dy), k.at(packed), k.at(x), ending.c(), k.at(tiles))
    ending.check(k.run(library, "tl_dense_grad_rows", d, x), correlate_input(*double(dy, w), s))


@few
@given(windows(), seeds)
def test_panels_of_an_input_gradient(built, s, seed):
    library, lanes = built
    _, _, w, _ = drawn(s, seed)
    order = np.arange(s.kh * s.kw, dtype=np.uint8)[::-1].copy()
    by_tap = w.reshape(s.o, order.size, s.c).transpose(1, 0, 2)[order]
    expected = panels(by_tap.reshape(-1, s.c), lanes)
    packed = k.room(expected.size)
    pack = k.PackGrad(k.at(w), k.at(packed), s.o, order.size, s.c, order.size, k.at(order))
    assert np.array_equal(k.run(library, "tl_pack_grad_panels", pack, packed)[: expected.size], expected)


@few
@given(windows(), seeds)
def test_dense_weight_gradient(built, s, seed):
    library, lanes = built
    _, x, _, dy = drawn(s, seed)
    depth = s.kh * s.kw * s.c
    dw, u = k.stored(s.o, depth)
    tiles = k.room(3 * (WEIGHTS_DEPTH * (min(depth, 24 * lanes) + s.o) + lanes))
    g = k.DenseWeights(k.shape(s), k.at(x), k.at(dy), k.at(k.room(0)), k.at(tiles), ctypes.pointer(u))
    sums = k.room(s.o * depth)
    g.sums = k.at(sums)
    expected = correlate_weight(*double(x, dy), s).reshape(s.o, depth)
    result = k.run(library, "tl_dense_weights_part", g, dw)
    assert np.abs(result - expected).max() <= 2e-6 * (np.abs(expected).max() + 1)


@st.composite
def image_windows(draw):
    """Windows that the kernels for few channels take."""
    s = draw(windows(kernel=(2, 3, 5)))
    h, w = max(s.h, s.kh), max(s.w, s.kw)
    oh, ow = (h + s.pt - s.kh) // s.sh + 1, (w + s.pl - s.kw) // s.sw + 1
    return replace(s, h=h, w=w, c=draw(st.integers(1, 4)), oh=oh, ow=ow, pb=0, pr=0, dh=1, dw=1)


@few
@given(image_windows(), st.sampled_from(k.ENDINGS), seeds)
def test_forward_of_few_channels(built, s, kind, seed):
    library, lanes = built
    rng, x, w, y = drawn(s, seed)
    ending = k.Ending(rng, y.shape, kind)
    packed = k.floats(panels(w.reshape(s.o, -1).T, lanes))
    scratch = k.room(3 * s.kh * line_floats(s))
    d = k.Lines(k.shape(s), k.at(x), k.at(packed), k.at(y), ending.c(), k.at(scratch))
    ending.check(k.run(library, "tl_lines_rows", d, y), correlate(*double(x, w), s))


@few
@given(image_windows(), seeds)
def test_weight_gradient_of_few_channels(built, s, seed):
    library, lanes = built
    _, x, _, dy = drawn(s, seed)
    depth = s.kh * s.kw * s.c
    dw, u = k.stored(s.o, depth)
    pitch = padded(s.o, lanes)
    sums, turned, scratch = (
        k.room(CHUNKS * depth * pitch),
        k.room(depth * s.o),
        k.room(3 * s.kh * line_floats(s)),
    )
    g = k.LinesWeights(k.shape(s), k.at(x), k.at(dy), k.at(sums), k.at(scratch))
    t = k.Chunks(k.at(sums), k.at(turned), depth, s.o, pitch, ctypes.pointer(u))
    expected = correlate_weight(*double(x, dy), s).reshape(s.o, depth)
    result = k.run_all(library, (("tl_lines_weights_part", g), ("tl_chunks_turned_part", t)), dw)
    assert np.abs(result - expected).max() <= 2e-6 * (np.abs(expected).max() + 1)


@few
@given(windows(depthwise=True), st.sampled_from(k.ENDINGS), seeds)
def test_depthwise_forward(built, s, kind, seed):
    library, lanes = built
    rng, x, w, y = drawn(s, seed)
    ending, packed = k.Ending(rng, y.shape, kind), k.floats(taps(w, lanes, False))
    d = k.Depthwise(k.shape(s), k.at(x), k.at(packed), k.at(y), ending.c())
    ending.check(k.run(library, "tl_depthwise_rows", d, y), correlate(*double(x, w), s))


@few
@given(windows(depthwise=True), st.sampled_from(["plain", "keep", "only keep"]), seeds)
def test_depthwise_input_gradient(built, s, kind, seed):
    """Through the forward kernel where the stride allows, else through its own."""
    library, lanes = built
    rng, x, w, dy = drawn(s, seed)
    ending, turned = k.Ending(rng, x.shape, kind), transposed(s)
    packed, count = k.room(s.kh * s.kw * padded(s.c, lanes)), s.kh * s.kw
    pack = k.Taps(k.at(w), k.at(packed), s.c, count, int(turned is not None))
    k.run(library, "tl_pack_taps", pack, packed)
    assert np.array_equal(
        packed[: count * padded(s.c, lanes)], taps(w, lanes, turned is not None).reshape(-1)
    )
    d = k.Depthwise(k.shape(turned or s), k.at(dy), k.at(packed), k.at(x), ending.c())
    name = "tl_depthwise_grad_rows" if turned is None else "tl_depthwise_rows"
    ending.check(k.run(library, name, d, x), correlate_input(*double(dy, w), s))


@few
@given(windows(depthwise=True), seeds)
def test_depthwise_weight_gradient(built, s, seed):
    library, lanes = built
    _, x, _, dy = drawn(s, seed)
    dw, u = k.stored(s.c, s.kh * s.kw)
    taps_, pitch = s.kh * s.kw, padded(s.c, lanes)
    sums, turned = k.room(CHUNKS * taps_ * pitch), k.room(taps_ * s.c)
    g = k.DepthwiseWeights(k.shape(s), k.at(x), k.at(dy), k.at(sums))
    t = k.Chunks(k.at(sums), k.at(turned), taps_, s.c, pitch, ctypes.pointer(u))
    expected = correlate_weight(*double(x, dy), replace(s, groups=s.c)).reshape(dw.shape)
    calls = ("tl_depthwise_weights_part", g), ("tl_chunks_turned_part", t)
    result = k.run_all(library, calls, dw)
    assert np.abs(result - expected).max() <= 2e-6 * (np.abs(expected).max() + 1)


@few
@given(windows(kernel=(3,)), st.booleans(), seeds)
def test_winograd(built, s, gradient, seed):
    """Forward and input gradient; a digit less exact than direct sums."""
    library, lanes = built
    s = replace(s, sh=1, sw=1, dh=1, dw=1, pt=1, pl=1, pb=1, pr=1, oh=s.h, ow=s.w)
    rng, x, w, dy = drawn(s, seed)
    ending = k.Ending(rng, (x if gradient else dy).shape, "plain")
    t = transposed(s) if gradient else s
    packed = k.room(36 * t.c * padded(t.o, lanes))
    pack = k.WinogradPack(k.at(w), k.at(packed), s.o, s.c, int(gradient))
    k.run(library, "tl_winograd_pack_part", pack, packed)
    ours, frozen = packed[: 36 * t.c * padded(t.o, lanes)], winograd.weights(w, lanes, gradient)
    assert np.abs(ours - frozen).max() <= 1e-6 * np.abs(frozen).max()
    tiles = k.room(3 * 36 * 48 * (padded(t.c, lanes) + padded(t.o, lanes)))
    source, result = (dy, x) if gradient else (x, dy)
    expected = correlate_input(*double(dy, w), s) if gradient else correlate(*double(x, w), s)
    d = k.Dense(k.shape(t), k.at(source), k.at(packed), k.at(result), ending.c(), k.at(tiles))
    ending.check(k.run(library, "tl_winograd_part", d, result), expected, 1e-5)


@few
@given(windows(depthwise=True, kernel=(1, 2, 3)), seeds)
def test_maximum_of_windows_and_its_gradient(built, s, seed):
    library, _ = built
    s = replace(s, dh=1, dw=1, pt=min(s.pt, s.kh - 1), pl=min(s.pl, s.kw - 1))
    s = replace(s, oh=(s.h + s.pt - s.kh) // s.sh + 1, ow=(s.w + s.pl - s.kw) // s.sw + 1)
    if min(s.oh, s.ow) < 1:
        return
    rng = np.random.default_rng(seed)
    x = k.floats(rng.integers(-3, 3, (s.n, s.h, s.w, s.c)))  # ties
    y, dy = (k.floats(rng.normal(0, 1, (s.n, s.oh, s.ow, s.c))) for _ in range(2))
    dx = k.floats(np.zeros(x.shape))
    p = k.Maxpool(k.shape(s), k.at(x), k.at(y), k.at(dy), k.at(dx))
    from trainlet.ir.ops.window import patches

    windows_ = patches(x.astype(np.float64), replace(s, pb=0, pr=0), -np.inf).reshape(
        s.n, s.oh, s.ow, -1, s.c
    )
    assert np.array_equal(k.run(library, "tl_maxpool_rows", p, y), windows_.max(3))
    first = windows_.argmax(3)
    expected = np.zeros((s.n, s.h, s.w, s.c))
    for n, oy, ox, c in np.ndindex(dy.shape):
        tap = first[n, oy, ox, c]
        expected[n, oy * s.sh - s.pt + tap // s.kw, ox * s.sw - s.pl + tap % s.kw, c] += dy[n, oy, ox, c]
    assert np.abs(k.run(library, "tl_maxpool_grad_channels", p, dx) - expected).max() <= 1e-5


@few
@given(st.integers(1, 70), st.integers(1, 50), seeds)
def test_bias_gradient(built, positions, channels, seed):
    dy = k.floats(np.random.default_rng(seed).normal(0, 1, (positions, channels)))
    db, u = k.stored(1, channels)
    sums = k.room(CHUNKS * channels + 16)
    s = k.BiasSums(k.at(dy), positions, channels, k.at(sums))
    t = k.Chunks(k.at(sums), None, 1, channels, channels, ctypes.pointer(u))
    expected = dy.astype(np.float64).sum(0)
    result = k.run_all(built[0], (("tl_bias_sums_part", s), ("tl_chunks_part", t)), db)
    assert np.abs(result - expected).max() <= 1e-5


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_threads_run_every_part_once(built, parts):
    """Also more parts than processors, many times over."""
    counts = np.zeros(parts, np.int64)

    @k.Part
    def count(argument, part, of):
        assert of == parts
        counts[part] += 1

    for _ in range(300):
        built[0].tl_parallel(count, None, ctypes.c_int32(parts))
    assert (counts == 300).all()
