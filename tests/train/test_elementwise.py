"""Float arithmetic: gradients by finite differences, broadcast operands, clamps and their masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.finite import assert_gradients_match
from tests.train.networks import Net, case, gradients, seeds
from trainlet.ir import interpret
from trainlet.ir.ops.elementwise import UNARY

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple)


@st.composite
def broadcasts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape of rank 2 to 4, and one of equal or lower rank that broadcasts against it."""
    big = draw(shapes)
    rank = draw(st.integers(2, len(big)))
    return big, tuple(draw(st.sampled_from([1, d])) for d in big[len(big) - rank :])


@given(st.sampled_from(["Add", "Sub", "Mul"]), broadcasts(), st.booleans(), seeds)
@QUICK
def test_broadcast_arithmetic_agrees_with_finite_differences(op: str, pair, swap: bool, seed: int) -> None:
    big, small = pair
    net = Net(big, seed)
    seen = net.add("ReduceSum", [net.x], {"shape": small})
    operands = [net.operand("big"), net.operand("small", x=seen)]
    y = net.add(op, operands[::-1] if swap else operands)
    assert_gradients_match(case(net.scored(y), seed))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_value_used_as_both_operands_sums_both_gradients(op: str) -> None:
    net = Net((2, 3))
    a = net.operand("a")
    y = net.add(op, [a, a])
    assert_gradients_match(case(net.scored(net.operand("last", x=y))))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("first", [False, True])
def test_constant_operand_gets_no_gradient(op: str, first: bool) -> None:
    net = Net((2, 3))
    operands = [net.operand("a"), net.normal("constant", (3,))]
    assert_gradients_match(case(net.scored(net.add(op, operands[::-1] if first else operands))))


@given(shapes, st.sampled_from([(0.0, math.inf), (0.0, 1.0), (-math.inf, 0.5), (-0.3, 0.7)]), seeds)
@QUICK
def test_clip_agrees_with_finite_differences(shape, bounds: tuple[float, float], seed: int) -> None:
    net = Net(shape, seed)
    y = net.add("Clip", [net.operand("a")], {"lo": bounds[0], "hi": bounds[1]})
    assert_gradients_match(case(net.scored(y), seed))


def test_clip_passes_nothing_at_its_bounds() -> None:
    net = Net((1, 4))
    w, b = net.constant("w", np.zeros((4, 4))), net.constant("b", [0.0, 3.0, 0.5, -1.0])
    y = net.add("Clip", [net.add("Gemm", [net.x, w, b])], {"lo": 0.0, "hi": 3.0})
    d = gradients(case(net.scored(y)))["b"]
    assert (d != 0).tolist() == [False, False, True, False]


@given(st.sampled_from(sorted(UNARY)), shapes, seeds)
@QUICK
def test_functions_of_one_value_agree_with_finite_differences(op: str, shape, seed: int) -> None:
    net = Net(shape, seed)
    assert_gradients_match(case(net.scored(net.add(op, [net.operand("a")])), seed))


@pytest.mark.parametrize("op", sorted(UNARY))
def test_functions_of_one_value_saturate_without_overflow(op: str) -> None:
    net = Net((1, 4))
    w, b = net.constant("w", np.zeros((4, 4))), net.constant("b", [-200.0, -5.0, 5.0, 200.0])
    assert np.isfinite(gradients(case(net.scored(net.add(op, [net.add("Gemm", [net.x, w, b])]))))["b"]).all()


def test_hard_sigmoid_keeps_its_slope() -> None:
    net = Net((2, 3))
    y = net.add("HardSigmoid", [net.operand("a")], {"alpha": 1 / 6, "beta": 0.5})
    assert_gradients_match(case(net.scored(y)))


@given(shapes, seeds)
@QUICK
def test_softmax_agrees_with_finite_differences(shape, seed: int) -> None:
    net = Net(shape, seed)
    assert_gradients_match(case(net.scored(net.add("Softmax", [net.operand("a")])), seed))


def test_scale_agrees_with_finite_differences() -> None:
    net = Net((2, 3))
    assert_gradients_match(case(net.scored(net.add("Scale", [net.operand("a")], {"factor": -0.35}))))


def test_value_with_three_consumers_gets_the_sum() -> None:
    net = Net((2, 4))
    a = net.operand("a")
    parts = [net.add("Tanh", [a]), net.add("Sigmoid", [a]), net.operand("b", x=a)]
    y = net.add("Add", [net.add("Mul", parts[:2]), parts[2]])
    given_case = case(net.scored(y))
    assert_gradients_match(given_case)
    sums = [
        n for n in given_case.derive().functions["step"].nodes if n.op == "Add" and "d_a" in n.output.name
    ]
    assert len(sums) == 2


def test_gradient_of_a_shortcut_is_the_sum_of_both_paths() -> None:
    net = Net((1, 3))
    a = net.operand("a")
    graph = net.scored(net.add("Add", [a, net.operand("b", x=a)]))
    step = case(graph).derive().functions["step"]
    run = interpret(step, case(graph).feeds, real=np.float64).values
    weight = graph.constants["b/weight"].data.astype(np.float64)
    expected = run["d_out"].reshape(1, 3) @ (np.eye(3) + weight)
    np.testing.assert_allclose(gradients(case(graph))["a/bias"], expected[0], rtol=1e-12)
