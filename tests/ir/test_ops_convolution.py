"""Forward convolutions and matrix products against PyTorch in float64, and int8 ones against integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.geometry import Convolution, convolutions, torch_convolution
from tests.ir.one_op import half_even, run, saturate
from trainlet.errors import GraphError
from trainlet.ir import Quant

seeds = st.integers(0, 2**32 - 1)


def name_of(case: Convolution) -> tuple[str, dict[str, object]]:
    return ("Conv", dict(case.attrs)) if case.rank else ("Gemm", {})


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


@given(convolutions(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_float_convolution_matches_torch(case: Convolution, biased: bool) -> None:
    rng = case.rng
    x, w = rng.normal(size=case.x), rng.normal(size=case.w)
    b = rng.normal(size=case.w[0]) if biased else None
    op, attrs = name_of(case)
    (y,) = run(op, [x, w, b], attrs)
    expected = torch_convolution(case, *(None if a is None else torch.from_numpy(a) for a in (x, w, b)))
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)


@given(convolutions())
@settings(max_examples=30, deadline=None)
def test_clip_inside_a_convolution_gives_the_clamp_mask(case: Convolution) -> None:
    rng = case.rng
    x, w = rng.normal(size=case.x), rng.normal(size=case.w)
    op, attrs = name_of(case)
    y, mask = run(op, [x, w], {**attrs, "lo": 0.0, "hi": 1.5}, outputs=2)
    before = torch_convolution(case, torch.from_numpy(x), torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(y, np.minimum(np.maximum(before, 0), 1.5), atol=1e-12)
    sure = (np.abs(before) > 1e-9) & (np.abs(before - 1.5) > 1e-9)
    assert np.array_equal(mask[sure], ((before > 0) & (before < 1.5))[sure])


@given(convolutions(), st.integers(-128, 127))
@settings(max_examples=50, deadline=None)
def test_integer_convolution_is_exact_and_pads_with_the_zero_point(case: Convolution, zero: int) -> None:
    rng = case.rng
    x, w = signed(rng, case.x), signed(rng, case.w)
    (acc,) = run("ConvInteger", [x, w], case.attrs, quants=[Quant(0.1, zero)])
    centred = torch.from_numpy(x.astype(np.float64) - zero)
    expected = torch_convolution(case, centred, torch.from_numpy(w.astype(np.float64)))
    assert acc.dtype == np.int32
    assert np.array_equal(acc, expected.numpy())


@given(convolutions(), st.integers(-128, 127))
@settings(max_examples=20, deadline=None)
def test_a_float_master_is_rounded_where_it_is_read(case: Convolution, zero: int) -> None:
    """A master may leave the int8 range; it saturates at 16 bits."""
    rng = case.rng
    x, master = signed(rng, case.x), (200 * rng.normal(size=case.w)).astype(np.float32)
    master.ravel()[:2] = [-1e9, 127.5][: master.size]
    rounded = [max(-(2**15), min(2**15 - 1, half_even(v))) for v in master.ravel()]
    whole = np.array(rounded, np.float64).reshape(case.w)
    (acc,) = run("ConvInteger", [x, master], case.attrs, quants=[Quant(0.1, zero)])
    expected = torch_convolution(case, torch.from_numpy(x.astype(np.float64) - zero), torch.from_numpy(whole))
    assert np.array_equal(acc, expected.numpy())
    assert np.array_equal(run("RoundMaster", [master])[0], whole)


def requantized(total: np.float32, scale: np.float32, zero: int) -> tuple[int, bool]:
    """One fp32 multiply, half to even, zero point, clamp; by hand for one element."""
    value = half_even(np.float32(total * scale)) + zero
    return saturate(value), -128 <= value <= 127


@given(seeds, st.integers(1, 5), st.integers(1, 9), st.integers(-128, 127))
@settings(max_examples=50, deadline=None)
def test_requantize_rounds_half_to_even_in_fp32(seed: int, rows: int, channels: int, zero: int) -> None:
    rng = np.random.default_rng(seed)
    acc = rng.integers(-(2**20), 2**20, (rows, channels)).astype(np.int32)
    bias = rng.integers(-(2**20), 2**20, channels).astype(np.int32)
    scale = rng.choice(np.float32([2**-13, 0.5**12, 1e-4, 3e-5]), channels)
    y, mask = run("Requantize", [acc, bias, scale], result=Quant(0.1, zero), outputs=2)
    for (r, c), value in np.ndenumerate(y):
        total = np.float32(np.float32(acc[r, c]) + np.float32(bias[c]))
        assert (value, mask[r, c]) == requantized(total, scale[c], zero)


def test_requantize_breaks_ties_towards_even() -> None:
    acc = np.int32([[1, 3, 5, -1, -3, -5]])
    zeros, halves = np.zeros(6, np.int32), np.full(6, 0.5, np.float32)
    assert run("Requantize", [acc, zeros, halves], result=Quant(1.0))[0].tolist() == [[0, 2, 2, 0, -2, -2]]


def test_requantize_survives_the_biases_of_dead_channels() -> None:
    acc, bias = np.int32([[5, 5]]), np.int32([2**31 - 1, -(2**31)])
    y, mask = run("Requantize", [acc, bias, np.ones(2, np.float32)], result=Quant(1.0, 3), outputs=2)
    assert y.tolist() == [[127, -128]]
    assert not mask.any()


def test_requantize_uses_a_float_bias_as_it_is() -> None:
    acc, scale = np.int32([[0, 0, 1]]), np.full(3, 10, np.float32)
    (y,) = run("Requantize", [acc, np.float32([0.3, -0.26, 0.5]), scale], result=Quant(1.0))
    assert y.tolist() == [[3, -3, 15]]


@given(convolutions(), st.integers(-128, 127), st.integers(-128, 127))
@settings(max_examples=30, deadline=None)
def test_qlinear_conv_is_conv_integer_then_requantize(case: Convolution, x_zero: int, y_zero: int) -> None:
    rng = case.rng
    x, w = signed(rng, case.x), signed(rng, case.w)
    bias = rng.integers(-9999, 9999, case.w[0]).astype(np.int32)
    scale = rng.uniform(1e-4, 1e-2, case.w[0]).astype(np.float32)
    quants, result = [Quant(0.1, x_zero)], Quant(0.2, y_zero)
    fused = run("QLinearConv", [x, w, bias, scale], case.attrs, quants=quants, result=result, outputs=2)
    (acc,) = run("ConvInteger", [x, w], case.attrs, quants=quants)
    chain = run("Requantize", [acc, bias, scale], result=result, outputs=2)
    assert all(np.array_equal(a, b) for a, b in zip(fused, chain, strict=True))


@given(convolutions(), st.data())
@settings(max_examples=40, deadline=None)
def test_trained_channels_lie_over_the_weight(case: Convolution, data: st.DataObject) -> None:
    rng = case.rng
    x, w = rng.normal(size=case.x), rng.normal(size=case.w)
    depthwise = case.groups > 1 and case.w[-1] == 1 and case.w[0] == case.groups
    count = case.w[0] if depthwise else case.w[-1]
    picked = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    channels, full = np.array(sorted(picked), np.uint16), w.copy()
    if depthwise:
        trained = rng.normal(size=(len(channels), *case.w[1:]))
        for i, c in enumerate(channels):
            full[c] = trained[i]
    else:
        trained = rng.normal(size=(*case.w[:-1], len(channels)))
        for i, c in enumerate(channels):
            full[..., c] = trained[..., i]
    op, attrs = name_of(case)
    overlaid = run("OverlayChannels", [w, trained, channels], {"groups": case.groups})[0]
    assert np.array_equal(overlaid, full)
    expected = run(op, [x, full], attrs)[0]
    assert np.array_equal(run(op, [x, w, None, trained, channels], attrs)[0], expected)
    if not depthwise:
        taken = run("TakeChannels", [w, channels])[0]
        assert np.array_equal(taken, np.stack([w[..., c] for c in channels], -1))


@given(seeds, st.booleans(), st.booleans(), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_matmul_matches_einsum(seed: int, trans_a: bool, trans_b: bool, batches: int) -> None:
    rng = np.random.default_rng(seed)
    *batch, m, k, n = rng.integers(1, 4, batches + 3)
    a = rng.normal(size=(*batch, k, m) if trans_a else (*batch, m, k))
    b = rng.normal(size=(*batch, n, k) if trans_b else (*batch, k, n))
    rule = f"...{'km' if trans_a else 'mk'},...{'nk' if trans_b else 'kn'}->...mn"
    (y,) = run("MatMul", [a, b], {"trans_a": trans_a, "trans_b": trans_b})
    np.testing.assert_allclose(y, np.einsum(rule, a, b), atol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "attrs", "message"),
    [
        ((1, 4, 4, 3), (2, 3, 3, 2), {}, "takes 2 input channels"),
        ((1, 4, 4, 3), (2, 3, 3, 1), {"groups": 3}, "do not split into 3 groups"),
        ((1, 2, 2, 3), (2, 3, 3, 3), {}, r"kernel \(3, 3\) does not fit"),
        ((1, 4, 3), (2, 3, 3, 3), {}, "2-D window over an operand"),
        ((1, 4, 4, 3), (2, 3, 3, 3), {"pads": (1, 1)}, r"pads \(1, 1\) for 2 spatial"),
        ((1, 4, 4, 3), (2, 3, 3, 3), {"strides": (0, 1)}, "negative or zero stride"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(
    x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        run("Conv", [np.zeros(x), np.zeros(w)], attrs)
