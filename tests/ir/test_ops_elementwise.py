"""Elementwise float ops, int8 arithmetic and moves, against plain numpy, Python and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.one_op import half_even, run, saturate
from trainlet.errors import GraphError
from trainlet.ir import Quant

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
zeros = st.integers(-128, 127)
bytes_ = st.integers(-128, 127)


@given(shapes, st.data(), seeds)
@settings(max_examples=40, deadline=None)
def test_arithmetic_broadcasts(shape: tuple[int, ...], data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    other = tuple(d if k else 1 for d, k in zip(shape, kept, strict=True))[data.draw(st.integers(0, 1)) :]
    a, b = rng.normal(size=shape), rng.normal(size=other)
    for op, function in (("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul)):
        expected = function(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        assert np.array_equal(run(op, [a, b])[0], expected)
        sign = -1 if op == "Sub" else 1
        assert np.array_equal(run(op, [b, a])[0], sign * expected)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(GraphError, match=r"shapes \(2,\) and \(3,\) do not broadcast"):
        run("Add", [np.zeros(2), np.zeros(3)])


@given(shapes, seeds)
@settings(max_examples=20, deadline=None)
def test_clip_passes_a_gradient_strictly_inside(shape: tuple[int, ...], seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float64)
    y, mask = run("Clip", [x], {"lo": -1.0, "hi": 2.0}, outputs=2)
    for index, value in np.ndenumerate(x):
        assert y[index] == min(max(value, -1.0), 2.0)
        assert mask[index] == (-1.0 < value < 2.0)


UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "HardSigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "HardSwish": F.hardswish,
    "Silu": F.silu,
    "Erf": torch.erf,
    "Gelu": F.gelu,
    "GeluTanh": lambda x: F.gelu(x, approximate="tanh"),
    "Softmax": lambda x: torch.softmax(x, -1),
}
TAKES_Y = {"SigmoidGrad", "TanhGrad", "SoftmaxGrad"}  # the others take x
assert {"HardSigmoidGrad", "HardSwishGrad"}.isdisjoint(TAKES_Y)


@pytest.mark.parametrize("op", UNARY)
@given(shapes, seeds)
@settings(max_examples=25, deadline=None)
def test_unary_ops_and_their_slopes_match_torch(op: str, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = 3 * rng.normal(size=shape), rng.normal(size=shape)
    tensor = torch.from_numpy(x).requires_grad_()
    expected = UNARY[op](tensor)
    expected.backward(torch.from_numpy(dy))
    (y,) = run(op, [x])
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    (dx,) = run(f"{op}Grad", [dy, y if f"{op}Grad" in TAKES_Y else x])
    np.testing.assert_allclose(dx, tensor.grad.numpy(), atol=1e-12)


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    x = np.array([[-1000.0, 0.0, 1000.0]])
    assert run("Sigmoid", [x], real=np.float32)[0].tolist() == [[0, 0.5, 1]]
    assert run("Softmax", [x], real=np.float32)[0].tolist() == [[0, 0, 1]]


@given(shapes, seeds, st.floats(-4, 4, width=32))
@settings(max_examples=20, deadline=None)
def test_scale_and_mask_grad(shape: tuple[int, ...], seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    x, mask = rng.normal(size=shape), rng.random(shape) < 0.5
    assert np.array_equal(run("Scale", [x], {"factor": factor})[0], x * factor)
    (dx,) = run("MaskGrad", [x, mask], {"factor": factor})
    for index, passes in np.ndenumerate(mask):
        assert dx[index] == (x[index] * factor if passes else 0)


@given(seeds, zeros, zeros, zeros)
@settings(max_examples=40, deadline=None)
def test_qlinear_add_in_fp32(seed: int, za: int, zb: int, zy: int) -> None:
    rng, f = np.random.default_rng(seed), np.float32
    a, b = rng.integers(-128, 128, (2, 9)).astype(np.int8)
    sa, sb, sy = (float(f(s)) for s in rng.uniform(0.01, 0.1, 3))
    quants = [Quant(sa, za), Quant(sb, zb)]
    y, mask = run("QLinearAdd", [a, b], quants=quants, result=Quant(sy, zy), outputs=2)
    for i in range(9):
        total = f(f(f(int(a[i]) - za) * f(sa)) + f(f(int(b[i]) - zb) * f(sb)))
        value = half_even(f(total / f(sy))) + zy
        assert (y[i], mask[i]) == (saturate(value), -128 <= value <= 127)


@given(seeds, zeros, zeros, zeros, st.booleans())
@settings(max_examples=40, deadline=None)
def test_qlinear_mul_with_and_without_a_gate(seed: int, za: int, zb: int, zy: int, gate: bool) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(-128, 128, (2, 3, 2, 4)).astype(np.int8)
    b = rng.integers(-128, 128, (2, 1, 1, 4) if gate else a.shape).astype(np.int8)
    sa, sb, sy = (float(np.float32(s)) for s in rng.uniform(0.01, 0.1, 3))
    quants = [Quant(sa, za), Quant(sb, zb)]
    y, mask = run("QLinearMul", [a, b], quants=quants, result=Quant(sy, zy), outputs=2)
    whole = np.broadcast_to(b, a.shape)
    for index, value in np.ndenumerate(y):
        product = (int(a[index]) - za) * (int(whole[index]) - zb)
        v = half_even(np.float32(product) * np.float32(sa * sb / sy)) + zy
        assert (value, mask[index]) == (saturate(v), -128 <= v <= 127)


@given(st.lists(bytes_, min_size=1, max_size=9), seeds)
@settings(max_examples=20, deadline=None)
def test_lookup_tables_are_indexed_from_minus_128(x: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, slopes = rng.integers(-128, 128, 256).astype(np.int8), rng.normal(size=256)
    dy = rng.normal(size=len(x))
    x8 = np.array(x, np.int8)
    assert run("QLinearLookup", [x8, table])[0].tolist() == [table[v + 128] for v in x]
    (dx,) = run("LookupGrad", [dy, x8, slopes])
    assert dx.tolist() == [g * slopes[v + 128] for g, v in zip(dy, x, strict=True)]


@given(seeds, st.floats(2**-10, 1.0, width=32), zeros)
@settings(max_examples=30, deadline=None)
def test_quantize_and_dequantize(seed: int, scale: float, zero: int) -> None:
    x = (40 * np.random.default_rng(seed).normal(size=11)).astype(np.float32)
    quant = Quant(scale, zero)
    q, mask = run("QuantizeLinear", [x], result=quant, outputs=2)
    for i, value in enumerate(x):
        v = half_even(np.float32(value / np.float32(scale))) + zero
        assert (q[i], mask[i]) == (saturate(v), -128 <= v <= 127)
    (back,) = run("DequantizeLinear", [q], quants=[quant])
    assert back.tolist() == [(int(v) - zero) * float(scale) for v in q]


@given(seeds, st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_requantize_grad_scales_by_channel_under_the_mask(seed: int, rows: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    dy, mask = rng.normal(size=(rows, channels)), rng.random((rows, channels)) < 0.5
    scale = rng.random(channels).astype(np.float32)
    (g,) = run("RequantizeGrad", [dy, scale, mask])
    for (r, c), value in np.ndenumerate(g):
        assert value == (dy[r, c] * float(scale[c]) if mask[r, c] else 0)


@given(shapes, seeds, st.data())
@settings(max_examples=40, deadline=None)
def test_moves_match_torch(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    rng, rank = np.random.default_rng(seed), len(shape)
    x = rng.integers(-128, 128, shape).astype(np.int8)
    t = torch.from_numpy(x)
    perm = tuple(data.draw(st.permutations(range(rank))))
    assert np.array_equal(run("Transpose", [x], {"perm": perm})[0], t.permute(perm).numpy())
    assert np.array_equal(run("Reshape", [x], {"shape": (x.size, 1)})[0], t.reshape(-1, 1).numpy())
    axis = data.draw(st.integers(0, rank - 1))
    assert np.array_equal(run("Concat", [x, x, x], {"axis": axis})[0], torch.cat([t, t, t], axis).numpy())
    begin, end = (data.draw(st.lists(st.integers(0, 2), min_size=rank, max_size=rank)) for _ in "be")
    sides = [p for pair in zip(begin[::-1], end[::-1], strict=True) for p in pair]
    (padded,) = run("Pad", [x], {"pads": (*begin, *end), "value": -7})
    assert np.array_equal(padded, F.pad(t, sides, value=-7).numpy())
    (back,) = run("Slice", [padded], {"starts": tuple(begin), "sizes": shape})
    assert np.array_equal(back, x)


@given(shapes, seeds, st.data())
@settings(max_examples=30, deadline=None)
def test_reduce_sum_is_the_adjoint_of_a_broadcast(
    shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    small = tuple(d if k else 1 for d, k in zip(shape, kept, strict=True))[data.draw(st.integers(0, 1)) :]
    dy = np.random.default_rng(seed).normal(size=shape)
    x = torch.zeros(small, dtype=torch.float64, requires_grad=True)
    x.expand(shape).backward(torch.from_numpy(dy))
    np.testing.assert_allclose(run("ReduceSum", [dy], {"shape": small})[0], x.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("Reshape", 1, {"shape": (5,)}, r"reshapes \(2, 3\) to \(5,\)"),
        ("Reshape", 1, {}, "attribute shape is required"),
        ("Transpose", 1, {"perm": (0, 0)}, r"perm \(0, 0\)"),
        ("Concat", 2, {"axis": 2}, "axis 2 of a 2-D operand"),
        ("Pad", 1, {"pads": (1, 1)}, r"pads \(1, 1\)"),
        ("Slice", 1, {"starts": (0, 2), "sizes": (2, 2)}, "slice"),
        ("ReduceSum", 1, {"shape": (3, 2)}, r"sums \(2, 3\) to \(3, 2\)"),
        ("Clip", 1, {"low": 1}, "unknown attribute low"),
        ("Clip", 2, {}, "takes 1 to 1 operands, got 2"),
        ("Cosh", 1, {}, "no such op"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(
    op: str, operands: int, attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        run(op, [np.zeros((2, 3))] * operands, attrs)


def test_fill_and_next_step() -> None:
    assert run("Fill", [np.ones((2, 2))], {"value": -math.pi})[0].tolist() == [[-math.pi] * 2] * 2
    assert run("NextStep", [np.uint32([7, 41])])[0].tolist() == [7, 42]


@given(shapes, st.data(), seeds)
@settings(max_examples=25, deadline=None)
def test_expand_repeats_dimensions_of_one(shape: tuple[int, ...], data: st.DataObject, seed: int) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    small = tuple(d if k else 1 for d, k in zip(shape, kept, strict=True))
    x = np.random.default_rng(seed).normal(size=small)
    (y,) = run("Expand", [x], {"shape": shape})
    assert np.array_equal(y, torch.from_numpy(x).expand(shape).numpy())


def test_expand_to_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(GraphError, match=r"expands \(2, 3\) to \(2, 4\)"):
        run("Expand", [np.zeros((2, 3))], {"shape": (2, 4)})
