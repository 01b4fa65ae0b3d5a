"""Gradients of convolutions, pools and losses against PyTorch's autograd in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.geometry import Convolution, convolutions, torch_convolution
from tests.ir.one_op import half_even, run
from trainlet.errors import GraphError
from trainlet.ir import Quant
from trainlet.ir.graph import Shape

seeds = st.integers(0, 2**32 - 1)


def backward(case: Convolution, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cotangent dy, and torch's dx and dw for it."""
    tx, tw = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    y = torch_convolution(case, tx, tw)
    dy = case.rng.normal(size=y.shape)
    y.backward(torch.from_numpy(dy))
    return dy, tx.grad.numpy(), tw.grad.numpy()


@given(convolutions(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_input_gradient_of_a_convolution(case: Convolution, added: bool) -> None:
    rng = case.rng
    x, w = rng.normal(size=case.x), rng.normal(size=case.w)
    dy, dx, _ = backward(case, x, w)
    addend = rng.normal(size=case.x) if added else None
    (found,) = run("ConvInputGrad", [dy, w, addend], {**case.attrs, "x_shape": case.x})
    np.testing.assert_allclose(found, dx if addend is None else dx + addend, atol=1e-11)


@given(convolutions())
@settings(max_examples=20, deadline=None)
def test_input_gradient_reads_a_rounded_master(case: Convolution) -> None:
    rng = case.rng
    w = (30 * rng.normal(size=case.w)).astype(np.float32)
    dy, dx, _ = backward(case, rng.normal(size=case.x), np.round(w).astype(np.float64))
    attrs = {**case.attrs, "x_shape": case.x, "integer": True}
    np.testing.assert_allclose(run("ConvInputGrad", [dy, w], attrs)[0], dx, atol=1e-10)


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_weight_gradient_of_a_convolution(case: Convolution) -> None:
    rng = case.rng
    x = rng.normal(size=case.x)
    dy, _, dw = backward(case, x, rng.normal(size=case.w))
    attrs = {**case.attrs, "kernel": case.w[1:-1]}
    np.testing.assert_allclose(run("ConvWeightGrad", [x, dy], attrs)[0], dw, atol=1e-11)


@given(convolutions(), st.integers(-128, 127))
@settings(max_examples=20, deadline=None)
def test_weight_gradient_subtracts_the_zero_point(case: Convolution, zero: int) -> None:
    rng = case.rng
    x = rng.integers(-128, 128, case.x).astype(np.int8)
    dy, _, dw = backward(case, x.astype(np.float64) - zero, rng.normal(size=case.w))
    attrs = {**case.attrs, "kernel": case.w[1:-1]}
    (found,) = run("ConvWeightGrad", [x, dy], attrs, quants=[Quant(0.1, zero)])
    np.testing.assert_allclose(found, dw, atol=1e-9)


@given(convolutions(), st.data())
@settings(max_examples=40, deadline=None)
def test_a_sparse_weight_gradient_needs_only_its_channels(case: Convolution, data: st.DataObject) -> None:
    rng = case.rng
    depthwise = case.groups > 1 and case.groups == case.x[-1] == case.w[0]
    if case.groups > 1 and not depthwise:
        return
    picked = data.draw(st.lists(st.integers(0, case.x[-1] - 1), min_size=1, unique=True))
    channels = np.array(sorted(picked), np.uint16)
    x = rng.normal(size=case.x)
    dy, _, dw = backward(case, x, rng.normal(size=case.w))
    saved, attrs = run("TakeChannels", [x, channels])[0], {**case.attrs, "kernel": case.w[1:-1]}
    if depthwise:
        (found,) = run("ConvWeightGrad", [saved, dy, channels], {**attrs, "depthwise": True})
        np.testing.assert_allclose(found, dw[channels], atol=1e-11)
    else:
        (found,) = run("ConvWeightGrad", [saved, dy], attrs)
        np.testing.assert_allclose(found, dw[..., channels], atol=1e-11)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), seeds)
@settings(max_examples=20, deadline=None)
def test_bias_gradient_sums_over_positions(shape: list[int], seed: int) -> None:
    dy = np.random.default_rng(seed).normal(size=shape)
    expected = sum((dy[i] for i in np.ndindex(*shape[:-1])), np.zeros(shape[-1]))
    np.testing.assert_allclose(run("BiasGrad", [dy])[0], expected, atol=1e-12)


@st.composite
def pools(draw: st.DrawFn) -> tuple[Shape, dict[str, object], int]:
    """x shape, attributes and a seed; padding is smaller than the kernel, as ONNX demands."""
    rank = draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    strides = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    pads = tuple(draw(st.integers(0, k - 1)) for _ in "be" for k in kernel)
    spatial = tuple(draw(st.integers(k, 5)) for k in kernel)
    shape = (draw(st.integers(1, 2)), *spatial, draw(st.integers(1, 3)))
    return shape, {"kernel": kernel, "strides": strides, "pads": pads}, draw(seeds)


def pool_by_hand(
    x: np.ndarray, attrs: dict[str, object], reduce: Callable[[np.ndarray, int], float]
) -> np.ndarray:
    """Each window by a Python loop; reduce(elements inside the operand, size of the kernel)."""
    kernel, strides, pads = attrs["kernel"], attrs["strides"], attrs["pads"]
    rank, spatial = len(kernel), x.shape[1:-1]
    sizes = [(spatial[i] + pads[i] + pads[rank + i] - kernel[i]) // strides[i] + 1 for i in range(rank)]
    y = np.zeros((x.shape[0], *sizes, x.shape[-1]))
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for at in np.ndindex(*sizes):
            first = [a * s - p for a, s, p in zip(at, strides, pads, strict=False)]
            inside = tuple(slice(max(f, 0), f + k) for f, k in zip(first, kernel, strict=True))
            y[(n, *at, c)] = reduce(x[(n, *inside, c)], int(np.prod(kernel)))
    return y


@given(pools(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_pools_match_a_loop(case: tuple[Shape, dict[str, object], int], include_pad: bool) -> None:
    shape, attrs, seed = case
    x = np.random.default_rng(seed).normal(size=shape)
    mean = pool_by_hand(x, attrs, lambda part, size: part.sum() / (size if include_pad else part.size))
    (found,) = run("AveragePool", [x], {**attrs, "count_include_pad": include_pad})
    np.testing.assert_allclose(found, mean, atol=1e-12)
    assert np.array_equal(run("MaxPool", [x], attrs)[0], pool_by_hand(x, attrs, lambda p, _: p.max()))


@given(pools(), st.integers(-128, 127), st.booleans())
@settings(max_examples=40, deadline=None)
def test_integer_pools_keep_the_scale(
    case: tuple[Shape, dict[str, object], int], zero: int, include_pad: bool
) -> None:
    shape, attrs, seed = case
    x = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)

    def mean(part: np.ndarray, size: int) -> int:
        outside = zero * (size - part.size) if include_pad else 0
        return half_even(
            np.float32(int(part.sum()) + outside) / np.float32(size if include_pad else part.size)
        )

    (found,) = run("AveragePool", [x], {**attrs, "count_include_pad": include_pad}, quants=[Quant(0.1, zero)])
    assert found.dtype == np.int8
    assert np.array_equal(found, pool_by_hand(x, attrs, mean))
    assert np.array_equal(run("MaxPool", [x], attrs)[0], pool_by_hand(x, attrs, lambda p, _: p.max()))


@given(pools(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_pool_gradients_are_adjoints(case: tuple[Shape, dict[str, object], int], include_pad: bool) -> None:
    """<pool(u), dy> = <u, grad(dy)>: for the mean any u, for the maximum a u near x with its order."""
    shape, attrs, seed = case
    rng = np.random.default_rng(seed)
    x, average = rng.normal(size=shape), {**attrs, "count_include_pad": include_pad}
    (y,) = run("AveragePool", [x], average)
    dy = rng.normal(size=y.shape)
    (dx,) = run("AveragePoolGrad", [dy], {**average, "x_shape": shape})
    np.testing.assert_allclose((y * dy).sum(), (x * dx).sum(), atol=1e-11)
    (dx,) = run("MaxPoolGrad", [dy, x], {**attrs, "x_shape": shape})
    np.testing.assert_allclose((run("MaxPool", [x], attrs)[0] * dy).sum(), (x * dx).sum(), atol=1e-11)


def test_max_pool_gives_a_tie_to_the_first() -> None:
    attrs = {"kernel": (2, 2), "strides": (2, 2)}
    (dx,) = run(
        "MaxPoolGrad", [np.full((1, 1, 1, 1), 5.0), np.ones((1, 2, 2, 1))], {**attrs, "x_shape": (1, 2, 2, 1)}
    )
    assert dx.ravel().tolist() == [5, 0, 0, 0]


def test_an_empty_kernel_pools_everything() -> None:
    x = np.arange(12.0).reshape(1, 6, 2)
    assert run("AveragePool", [x], {"kernel": ()})[0].tolist() == [[[5, 6]]]


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SoftmaxCrossEntropy": F.cross_entropy,
    "SigmoidCrossEntropy": lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z),
    "MeanSquaredError": F.mse_loss,
}
assert LOSSES.keys() == {"SoftmaxCrossEntropy", "SigmoidCrossEntropy", "MeanSquaredError"}
GRADIENTS = ("SoftmaxCrossEntropyGrad", "SigmoidCrossEntropyGrad", "MeanSquaredErrorGrad")


@pytest.mark.parametrize(("loss", "gradient"), [*zip(LOSSES, GRADIENTS, strict=True)])
@given(st.integers(1, 5), st.integers(1, 6), seeds)
@settings(max_examples=30, deadline=None)
def test_losses_and_their_gradients(loss: str, gradient: str, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = 5 * rng.normal(size=(n, k))
    target = rng.integers(0, k, n).astype(np.int32) if loss == "SoftmaxCrossEntropy" else rng.random((n, k))
    tensor, wanted = torch.from_numpy(z).requires_grad_(), torch.from_numpy(target)
    expected = LOSSES[loss](tensor, wanted.long() if target.dtype == np.int32 else wanted)
    expected.backward()
    np.testing.assert_allclose(run(loss, [z, target])[0], [expected.item()], atol=1e-12)
    np.testing.assert_allclose(run(gradient, [z, target])[0], tensor.grad.numpy(), atol=1e-12)


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    z, label = np.float32([[1e30, -1e30]]), np.int32([1])
    assert np.isfinite(run("SoftmaxCrossEntropy", [z, label], real=np.float32)[0]).all()
    assert run("SoftmaxCrossEntropyGrad", [z, label])[0].tolist() == [[1, -1]]


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "message"),
    [
        ("ConvInputGrad", [(1, 4, 4, 2), (2, 3, 3, 3)], {"x_shape": (1, 4, 4, 3)}, "gradient .* for 4 x 2"),
        ("ConvInputGrad", [(1, 4, 4, 2), (2, 3, 3, 3)], {}, "attribute x_shape is required"),
        ("MeanSquaredError", [(1, 2), (1, 3)], {}, "outputs .* targets"),
        ("SoftmaxCrossEntropy", [(1, 2), (1,)], {}, "labels are f32"),
        ("AveragePool", [(2, 3)], {"kernel": (1,)}, "pools an operand of shape"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(
    op: str, shapes: list[Shape], attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        run(op, [np.zeros(s) for s in shapes], attrs)
