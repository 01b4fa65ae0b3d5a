"""Moving elements: the gradient is the move back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.finite import assert_gradients_match
from tests.train.networks import Net, case, seeds
from trainlet.ir import Value

QUICK = settings(max_examples=15, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


def weighted(net: Net, y: Value) -> Value:
    """y times a constant: elements that change places then change the loss."""
    return net.add("Mul", [y, net.normal("weights", y.shape)])


@given(shapes, st.data(), seeds)
@QUICK
def test_transpose_agrees_with_finite_differences(shape, data: st.DataObject, seed: int) -> None:
    net = Net(shape, seed)
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    y = net.add("Transpose", [net.operand("a")], {"perm": perm})
    flat = net.add("Reshape", [weighted(net, y)], {"shape": (shape[0], y.size // shape[0])})
    assert_gradients_match(case(net.scored(flat), seed))


@given(shapes, st.data(), seeds)
@QUICK
def test_concat_agrees_with_finite_differences(shape, data: st.DataObject, seed: int) -> None:
    net, axis = Net(shape, seed), data.draw(st.integers(1, len(shape) - 1))
    a = net.operand("a")
    parts = [a, net.normal("constant", shape), net.operand("b", x=a), a]
    assert_gradients_match(case(net.scored(weighted(net, net.add("Concat", parts, {"axis": axis}))), seed))


@given(shapes, st.data(), seeds)
@QUICK
def test_pad_agrees_with_finite_differences(shape, data: st.DataObject, seed: int) -> None:
    net, rank = Net(shape, seed), len(shape)
    pads = tuple(0 if i % rank == 0 else data.draw(st.integers(0, 2)) for i in range(2 * rank))
    y = net.add("Pad", [net.operand("a")], {"pads": pads, "value": 0.5})
    assert_gradients_match(case(net.scored(weighted(net, y)), seed))


@given(shapes, st.data(), seeds)
@QUICK
def test_slice_agrees_with_finite_differences(shape, data: st.DataObject, seed: int) -> None:
    net = Net(shape, seed)
    cuts = [sorted(data.draw(st.sets(st.integers(0, d), min_size=2, max_size=2))) for d in shape[1:]]
    starts, sizes = (0, *(a for a, _ in cuts)), (shape[0], *(b - a for a, b in cuts))
    y = net.add("Slice", [net.operand("a")], {"starts": starts, "sizes": sizes})
    assert_gradients_match(case(net.scored(weighted(net, y)), seed))


def test_overlapping_slices_sum_where_they_overlap() -> None:
    net = Net((2, 6))
    a = net.operand("a")
    blocks = [net.add("Slice", [a], {"starts": (0, i), "sizes": (2, 3)}) for i in (0, 1, 3)]
    assert all(x.shape == y.shape for x, y in pairwise(blocks))
    product = net.add("Mul", [net.add("Mul", blocks[:2]), blocks[2]])
    assert_gradients_match(case(net.scored(product)))


@given(shapes, st.data(), seeds)
@QUICK
def test_reduce_sum_agrees_with_finite_differences(shape, data: st.DataObject, seed: int) -> None:
    net = Net(shape, seed)
    kept = (shape[0], *(data.draw(st.sampled_from([1, d])) for d in shape[1:]))
    y = net.add("ReduceSum", [net.operand("a")], {"shape": kept})
    assert_gradients_match(case(net.scored(weighted(net, y)), seed))


def test_reduce_sum_over_leading_dimensions_agrees_with_finite_differences() -> None:
    net = Net((2, 3, 4))
    total = net.add("ReduceSum", [net.operand("a")], {"shape": (1, 4)})
    assert_gradients_match(case(net.scored(net.add("Mul", [net.operand("b"), total]))))


def test_reshape_agrees_with_finite_differences() -> None:
    net = Net((2, 3, 4))
    y = net.add("Reshape", [net.operand("a")], {"shape": (2, 4, 3)})
    assert_gradients_match(case(net.scored(weighted(net, y))))
