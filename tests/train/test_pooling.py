"""Pools: gradients by finite differences, padding, and ties of a maximum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.finite import assert_gradients_match
from tests.train.networks import Net, case, gradients, seeds, slidings

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@given(st.sampled_from(["MaxPool", "AveragePool"]), slidings((1, 2), 2, False, False), st.booleans(), seeds)
@QUICK
def test_pool_agrees_with_finite_differences(op: str, s, count_include_pad: bool, seed: int) -> None:
    net = Net(s.x, seed)
    attrs = {**s.attrs, "kernel": s.kernel, "count_include_pad": count_include_pad}
    assert_gradients_match(case(net.scored(net.add(op, [net.operand("a")], attrs)), seed))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 5, 3)])
def test_pool_over_everything_agrees_with_finite_differences(op: str, shape: tuple[int, ...]) -> None:
    net = Net(shape)
    assert_gradients_match(case(net.scored(net.add(op, [net.operand("a")], {"kernel": ()}))))


def test_tie_of_a_maximum_goes_to_the_first_element() -> None:
    net = Net((1, 4, 1))
    w, b = net.constant("w", np.ones((1, 1))), net.constant("b", [0.0])
    y = net.add("MaxPool", [net.add("Gemm", [net.x, w, b])], {"kernel": (2,), "strides": (2,)})
    given_case = case(net.scored(y))
    x, target = np.array([[[5.0], [5.0], [7.0], [7.0]]]), np.array([[4.0, 5.0]])
    found = gradients(
        type(given_case)(given_case.graph, given_case.selection, {"x": x, "label": target, "lr": np.ones(1)})
    )
    # d loss / d y = 2 (y - target) / 2 = (1, 2), once each: not once for every element of a tie
    assert found["b"] == pytest.approx([3.0])
