"""Convolutions and matrix products: weight, bias and input gradients, whole and by channel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.finite import assert_gradients_match
from tests.train.networks import Net, case, gradients, seeds, slidings
from trainlet.errors import UnsupportedGradient
from trainlet.ir import Graph
from trainlet.scheme import Selection
from trainlet.train import derive

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Graph, int]:
    """x -> Gemm -> Conv of rank 1 or 2, grouped or depthwise, and the seed it was drawn from."""
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    outputs = groups * draw(st.integers(1, 2))
    s = draw(slidings((1, 2), groups * per_group, True, True))
    net, attrs = Net(s.x, draw(seeds)), {**s.attrs, "dilations": s.dilations, "groups": groups}
    w = net.normal("conv/weight", (outputs, *s.kernel, per_group))
    b = net.normal("conv/bias", (outputs,)) if draw(st.booleans()) else None
    return net.scored(net.add("Conv", [net.operand("pre"), w, b], attrs)), draw(seeds)


@given(convolutions())
@QUICK
def test_convolution_agrees_with_finite_differences(drawn: tuple[Graph, int]) -> None:
    assert_gradients_match(case(*drawn))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(1, 4), seeds)
@QUICK
def test_gemm_of_any_rank_agrees_with_finite_differences(shape: list[int], outputs: int, seed: int) -> None:
    net = Net(tuple(shape), seed)
    graph = net.scored(net.operand("last", outputs, net.operand("first")))
    assert_gradients_match(case(graph, seed))


def subsets(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    some = st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1)
    return some.map(lambda s: tuple(sorted(s)))


@given(slidings((1, 2), 4, True, True), subsets(4), subsets(4), st.booleans(), seeds)
@QUICK
def test_channel_subset_agrees_with_finite_differences(
    s, first: tuple[int, ...], second: tuple[int, ...], depthwise: bool, seed: int
) -> None:
    net, groups = Net(s.x, seed), 4 if depthwise else 1
    w = net.normal("conv/weight", (4, *s.kernel, 4 // groups))
    attrs = {**s.attrs, "dilations": s.dilations, "groups": groups}
    y = net.add("Conv", [net.operand("pre"), w, net.normal("conv/bias", (4,))], attrs)
    chosen = {"pre/weight": first, "conv/weight": second}
    assert_gradients_match(case(net.scored(y), seed, chosen))


@pytest.mark.parametrize("depthwise", [False, True])
def test_subset_gradient_is_the_slice_of_the_whole_gradient(depthwise: bool) -> None:
    net, groups = Net((2, 5, 4, 6), 3), 6 if depthwise else 1
    w = net.normal("conv/weight", (6, 3, 3, 6 // groups))
    y = net.add("Conv", [net.operand("pre"), w], {"pads": (1, 1, 1, 1), "groups": groups})
    graph = net.scored(y)
    whole, part = gradients(case(graph)), gradients(case(graph, channels={"conv/weight": (1, 4)}))
    expected = whole["conv/weight"][[1, 4]] if depthwise else whole["conv/weight"][..., [1, 4]]
    np.testing.assert_allclose(part["conv/weight"], expected, rtol=1e-12)
    np.testing.assert_allclose(part["pre/weight"], whole["pre/weight"], rtol=1e-12)


def test_subset_keeps_only_its_input_channels() -> None:
    net = Net((1, 4, 4, 8))
    w = net.normal("conv/weight", (5, 1, 1, 8))
    graph = net.scored(net.add("Conv", [net.operand("pre"), w]))
    step = derive(graph, Selection("s", {"conv/weight": (2, 5)}, frozenset()), loss="mean-squared-error")
    (node,) = (n for n in step.functions["step"].nodes if n.op == "ConvWeightGrad")
    assert node.inputs[0].shape == (1, 4, 4, 2)


@given(st.booleans(), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), seeds)
@QUICK
def test_matmul_with_transposes_agrees_with_finite_differences(
    ta: bool, tb: bool, m: int, k: int, n: int, seed: int
) -> None:
    net = Net((2, 2, 4), seed)
    a, b = (
        net.add("Reshape", [net.operand(name, size, flat)], {"shape": shape})
        for name, size, flat, shape in (
            ("a", m * k, net.x, (2, 2, *((k, m) if ta else (m, k)))),
            ("b", k * n, net.x, (2, 2, *((n, k) if tb else (k, n)))),
        )
    )
    y = net.add("MatMul", [a, b], {"trans_a": ta, "trans_b": tb})
    assert_gradients_match(case(net.scored(y), seed))


def test_matmul_of_a_value_with_itself_sums_both_gradients() -> None:
    net = Net((1, 3, 3))
    a = net.operand("a")
    assert_gradients_match(case(net.scored(net.add("MatMul", [a, a], {"trans_b": True}))))


def test_weight_read_by_two_layers_gets_both_gradients() -> None:
    net = Net((2, 3))
    w = net.normal("shared/weight", (3, 3))
    y = net.add("Clip", [net.add("Gemm", [net.x, w])], {"lo": -1.0, "hi": math.inf})
    graph = net.scored(net.add("Gemm", [y, w]))
    given_case = case(graph)
    assert [p.name for p in given_case.derive().parameters] == ["shared/weight"]
    assert_gradients_match(given_case)


def test_weight_that_is_computed_has_no_gradient() -> None:
    net = Net((3, 4))
    graph = net.scored(net.add("Gemm", [net.operand("x1"), net.operand("w1")], source="net.onnx:/attention"))
    with pytest.raises(UnsupportedGradient, match="net.onnx:/attention"):
        derive(graph, case(graph).selection, loss="mean-squared-error")
