"""Each operator the ONNX frontend reads, alone, against onnxruntime; then through export and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontends.onnx_models import Net, check, ops

FEW = settings(max_examples=25, deadline=None)
dims = st.integers(1, 4)


@st.composite
def windows(draw: st.DrawFn, rank: int) -> tuple[list[int], list[int], dict[str, list[int]]]:
    """Spatial sizes, kernel and attributes of a window that fits."""
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    span = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    sizes = [s + draw(st.integers(0, 4)) for s in span]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    return sizes, kernel, {"strides": strides, "pads": pads, "dilations": dilations}


@FEW
@given(
    st.data(), st.integers(1, 2), dims, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans()
)
def test_convolution(
    data: st.DataObject, rank: int, groups: int, per_in: int, per_out: int, batch: int, biased: bool
) -> None:
    sizes, kernel, attrs = data.draw(windows(rank))
    net = Net(batch, groups * per_in, *sizes)
    operands = ["x", net.weight(groups * per_out, per_in, *kernel, name="w")]
    operands += [net.weight(groups * per_out, name="b")] if biased else []
    graph = check(net.model(net("Conv", *operands, group=groups, **attrs)), (batch, groups * per_in, *sizes))
    assert ops(graph) == ["Conv"]
    assert graph.constants["w"].data.shape == (groups * per_out, *kernel, per_in)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad(mode: str, stride: int) -> None:
    net = Net(1, 2, 8, 9)
    y = net("Conv", "x", net.weight(3, 2, 3, 2), auto_pad=mode, strides=[stride, stride])
    y = net("MaxPool", y, auto_pad=mode, kernel_shape=[2, 2], strides=[1, 1])
    check(net.model(y), (1, 2, 8, 9))


@FEW
@given(st.data(), st.integers(1, 2), dims, st.sampled_from(["MaxPool", "AveragePool"]), st.booleans())
def test_pool(data: st.DataObject, rank: int, channels: int, op: str, include: bool) -> None:
    sizes, kernel, attrs = data.draw(windows(rank))
    attrs.pop("dilations")
    sizes = [max(s, k) for s, k in zip(sizes, kernel, strict=True)]
    extra = {"count_include_pad": int(include)} if op == "AveragePool" else {}
    net = Net(2, channels, *sizes)
    check(net.model(net(op, "x", kernel_shape=kernel, **attrs, **extra)), (2, channels, *sizes))


def test_ceil_mode_is_read_where_it_changes_nothing() -> None:
    net = Net(1, 2, 8, 8)
    check(net.model(net("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)), (1, 2, 8, 8))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 7)])
def test_global_pool(op: str, shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    check(net.model(net(op, "x")), shape)


@FEW
@given(
    st.data(), st.sampled_from([(2, 3, 4, 5), (2, 3, 4), (3, 4)]), st.booleans(), st.booleans(), st.booleans()
)
def test_reduction(
    data: st.DataObject, shape: tuple[int, ...], keep: bool, spatial_first: bool, mean: bool
) -> None:
    axes = data.draw(
        st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, unique_by=lambda a: a % len(shape))
    )
    net = Net(*shape)
    x = net("MaxPool", "x", kernel_shape=[1] * (len(shape) - 2)) if spatial_first and len(shape) > 2 else "x"
    if mean:
        y = net("ReduceMean", x, axes=axes, keepdims=int(keep))
    else:
        y = net("ReduceSum", x, net.const(axes), keepdims=int(keep))
    check(net.model(y), shape)


def test_mean_over_axes_given_as_an_operand() -> None:
    net = Net(2, 3, 4, 5, opset=18)
    check(net.model(net("ReduceMean", "x", net.const([-1]), keepdims=0)), (2, 3, 4, 5))


def test_spatial_mean_is_a_global_pool() -> None:
    net = Net(2, 3, 4, 4)
    y = net("ReduceMean", net("Conv", "x", net.weight(5, 3, 1, 1)), axes=[2, 3], keepdims=0)
    graph = check(net.model(net("Gemm", y, net.weight(4, 5), transB=1)), (2, 3, 4, 4))
    assert ops(graph) == ["Conv", "AveragePool", "Reshape", "Gemm"]


@FEW
@given(st.integers(1, 4), dims, dims, st.booleans(), st.booleans(), st.floats(-2, 2), st.floats(-2, 2),
       st.sampled_from(["none", "vector", "row", "scalar"]))  # fmt: skip
def test_gemm(n: int, i: int, o: int, ta: bool, tb: bool, alpha: float, beta: float, bias: str) -> None:
    shape = (i, n) if ta else (n, i)
    net = Net(*shape)
    w = net.const(net.rng.normal(size=(o, i) if tb else (i, o)), "w")
    shapes = {"vector": [(o,)], "row": [(1, o)], "scalar": [()], "none": []}[bias]
    biases = [net.const(net.rng.normal(size=s).astype(np.float32), "b") for s in shapes]
    y = net("Gemm", "x", w, *biases, transA=int(ta), transB=int(tb), alpha=alpha, beta=beta)
    graph = check(net.model(y), shape)
    assert graph.constants["w"].data.shape == (o, i)


@FEW
@given(st.lists(dims, max_size=2), dims, dims, dims, st.booleans())
def test_matrix_product_of_two_activations(batch: list[int], m: int, k: int, n: int, swap: bool) -> None:
    net = Net(*batch, m, k)
    rank = len(batch) + 2
    left = net("Relu", "x")
    w = net("MatMul", "x", net.weight(k, k))
    right = net("Transpose", w, perm=[*range(rank - 2), rank - 1, rank - 2])
    y = net("MatMul", left, right)
    check(net.model(net("MatMul", right, left) if swap else y), (*batch, m, k))


def test_a_stored_transpose_costs_nothing_in_a_matrix_product() -> None:
    net = Net(2, 3, 4)
    y = net("MatMul", "x", net("Transpose", "x", perm=[0, 2, 1]))
    graph = check(net.model(y), (2, 3, 4))
    assert ops(graph) == ["MatMul"] and graph.nodes[0].attrs["trans_b"]


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 5, 4, 3)])
def test_matmul_and_add_are_a_gemm_with_bias(shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    y = net("Add", net("MatMul", "x", net.weight(3, 6, name="w")), net.weight(6, name="b"))
    graph = check(net.model(y), shape)
    assert ops(graph) == ["Gemm"] and set(graph.constants) == {"w", "b"}


@FEW
@given(st.data(), st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.booleans(), st.booleans())
def test_arithmetic_with_a_constant(data: st.DataObject, op: str, windowed: bool, left: bool) -> None:
    shape = data.draw(st.lists(dims, min_size=1, max_size=4).map(tuple))
    rank = data.draw(st.integers(0, 4))
    other = tuple(data.draw(st.sampled_from([1, d])) for d in ((1, 1, 1, 1, *shape)[-rank:] if rank else ()))
    net = Net(*shape)
    x = (
        net("MaxPool", "x", kernel_shape=[1] * (len(shape) - 2))
        if windowed and len(shape) > 2
        else net("Relu", "x")
    )
    c = net.const(net.rng.uniform(0.5, 2, other).astype(np.float32))
    check(net.model(net(op, c, x) if left and op != "Div" else net(op, x, c)), shape)


@FEW
@given(
    st.sampled_from(["Add", "Sub", "Mul"]),
    st.sampled_from([(2, 3, 1, 1), (2, 3, 4, 5), (1, 1, 4, 5), (2, 1, 4, 1)]),
)
def test_arithmetic_of_activations_broadcasts(op: str, part: tuple[int, ...]) -> None:
    net = Net(2, 3, 4, 5)
    conv = net("Conv", "x", net.weight(3, 3, 1, 1))
    axes = [i for i, d in enumerate(part) if d == 1 and (2, 3, 4, 5)[i] != 1]
    other = net("ReduceMean", "x", axes=axes, keepdims=1) if axes else net("Tanh", "x")
    graph = check(net.model(net(op, other, conv)), (2, 3, 4, 5))
    # A mean over dimensions that are not neighbours has to move them together first.
    assert "Transpose" not in ops(graph) or part in [(1, 1, 4, 5), (2, 1, 4, 1)]


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Neg", "Identity"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 7)])
def test_unary(op: str, shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    attrs = {"alpha": 1 / 6, "beta": 0.5} if op == "HardSigmoid" else {}
    y = net(op, net("Tanh", "x"), **attrs)
    check(net.model(y), shape)


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (None, 0.5), (-0.25, None)])
def test_clip(bounds: tuple[float | None, float | None]) -> None:
    net = Net(4, 5)
    names = ["" if b is None else net.const(b) for b in bounds]
    check(net.model(net("Clip", "x", *names)), (4, 5))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("windowed", [False, True])
def test_softmax(opset: int, axis: int, windowed: bool) -> None:
    net = Net(2, 3, 4, 5, opset=opset)
    x = net("MaxPool", "x", kernel_shape=[1, 1]) if windowed else "x"
    check(net.model(net("Softmax", x, axis=axis)), (2, 3, 4, 5))


def test_softmax_over_channels_moves_nothing() -> None:
    net = Net(1, 3, 4, 5)
    graph = check(net.model(net("Softmax", net("Conv", "x", net.weight(6, 3, 1, 1)), axis=1)), (1, 3, 4, 5))
    assert ops(graph) == ["Conv", "Softmax"]


@FEW
@given(st.data(), st.integers(1, 4))
def test_concat(data: st.DataObject, axis: int) -> None:
    axis -= 1
    net = Net(2, 3, 4, 5)
    parts = []
    for kind in data.draw(
        st.lists(st.sampled_from(["conv", "tanh", "const", "pool"]), min_size=1, max_size=3)
    ):
        if kind == "conv":
            parts.append(net("Conv", "x", net.weight(3, 3, 1, 1)))
        elif kind == "const":
            parts.append(net.weight(2, 3, 4, 5))
        else:
            parts.append(net("Tanh", "x") if kind == "tanh" else net("MaxPool", "x", kernel_shape=[1, 1]))
    check(net.model(net("Concat", net("Sigmoid", "x"), *parts, axis=axis)), (2, 3, 4, 5))


@FEW
@given(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.floats(-1, 1, width=32), st.booleans())
def test_pad(pads: list[int], value: float, windowed: bool) -> None:
    net = Net(1, 2, 3, 4)
    x = net("Conv", "x", net.weight(2, 2, 1, 1)) if windowed else "x"
    check(net.model(net("Pad", x, net.const(pads), net.const(value))), (1, 2, 3, 4))


def test_pad_of_some_axes() -> None:
    net = Net(1, 2, 3, opset=18)
    y = net("Pad", "x", net.const([1, 2]), "", net.const([-1]))
    check(net.model(y), (1, 2, 3))


@FEW
@given(st.data(), st.booleans())
def test_slice(data: st.DataObject, windowed: bool) -> None:
    shape = (2, 4, 5, 6)
    axes = data.draw(st.lists(st.integers(0, 3), min_size=1, unique=True))
    starts = [data.draw(st.integers(0, shape[a] - 1)) for a in axes]
    ends = [
        data.draw(st.one_of(st.integers(s + 1, shape[a]), st.just(2**31)))
        for s, a in zip(starts, axes, strict=True)
    ]
    net = Net(*shape)
    x = net("Conv", "x", net.weight(4, 4, 1, 1)) if windowed else "x"
    check(net.model(net("Slice", x, net.const(starts), net.const(ends), net.const(axes))), shape)


@pytest.mark.parametrize("index", [0, -1, 2])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("keep", [False, True])
def test_gather_of_one_place(index: int, axis: int, keep: bool) -> None:
    net = Net(2, 3, 4, 5)
    x = net("Conv", "x", net.weight(3, 3, 1, 1))
    check(net.model(net("Gather", x, net.const([index] if keep else index), axis=axis)), (2, 3, 4, 5))


def test_zeros_around_a_convolution_are_its_own_padding() -> None:
    net = Net(1, 2, 6, 6)
    y = net("Pad", "x", net.const([0, 0, 1, 0, 0, 0, 0, 2]), net.const(0.0))
    graph = check(net.model(net("Conv", y, net.weight(3, 2, 3, 3), pads=[1, 1, 0, 0])), (1, 2, 6, 6))
    assert ops(graph) == ["Conv"] and graph.nodes[0].attrs["pads"] == (2, 1, 0, 2)


@pytest.mark.parametrize("case", ["value", "channels", "second reader", "auto_pad"])
def test_other_padding_stays(case: str) -> None:
    net = Net(1, 2, 6, 6)
    pads = [0, 1, 1, 1, 0, 0, 1, 1] if case == "channels" else [0, 0, 1, 1, 0, 0, 1, 1]
    y = net("Pad", "x", net.const(pads), net.const(1.0 if case == "value" else 0.0))
    auto = {"auto_pad": "SAME_UPPER"} if case == "auto_pad" else {}
    z = net("Conv", y, net.weight(2, 3 if case == "channels" else 2, 1, 1), **auto)
    z = net("Add", y, z) if case == "second reader" else z
    assert "Pad" in ops(check(net.model(z), (1, 2, 6, 6)))


def test_split_into_branches() -> None:
    net = Net(1, 6, 4, 4)
    a, b = net("Split", net("Conv", "x", net.weight(6, 6, 1, 1)), net.const([2, 4]), outputs=2, axis=1)
    y = net(
        "Concat",
        net(
            "Conv",
            b,
            net.weight(
                3,
                4,
                3,
                3,
            ),
            pads=[1] * 4,
        ),
        a,
        axis=1,
    )
    graph = check(net.model(y), (1, 6, 4, 4))
    assert "Transpose" not in ops(graph)


@FEW
@given(st.data(), st.booleans())
def test_chains_of_reshapes_and_transposes(data: st.DataObject, windowed: bool) -> None:
    net = Net(2, 3, 4, 6)
    shape, y = [2, 3, 4, 6], net("Conv", "x", net.weight(3, 3, 1, 1)) if windowed else net("Tanh", "x")
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            perm = list(data.draw(st.permutations(range(len(shape)))))
            y, shape = net("Transpose", y, perm=perm), [shape[p] for p in perm]
        else:
            shape = data.draw(
                st.sampled_from([[2, 3, 4, 6], [6, 24], [2, 72], [4, 9, 4], [12, 2, 6], [144], [8, 18]])
            )
            y = net("Reshape", y, net.const(shape))
        if data.draw(st.booleans()):
            y = net("Add", y, net.weight(shape[-1]))
    check(net.model(net("Tanh", y)), (2, 3, 4, 6))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_flatten_axis(axis: int) -> None:
    net = Net(2, 3, 4, 5)
    check(net.model(net("Flatten", net("Conv", "x", net.weight(3, 3, 1, 1)), axis=axis)), (2, 3, 4, 5))


def test_flatten_is_folded_into_the_gemm_that_reads_it() -> None:
    net = Net(2, 3, 4, 5)
    y = net("Flatten", net("Relu", net("Conv", "x", net.weight(6, 3, 1, 1))))
    graph = check(net.model(net("Gemm", y, net.weight(7, 120, name="head"), transB=1)), (2, 3, 4, 5))
    assert ops(graph) == ["Conv", "Clip", "Reshape", "Gemm"]


@pytest.mark.parametrize("opset", [11, 17])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    net = Net(2, 3, 4, opset=opset)
    if opset < 13:
        y = net("Squeeze", net("GlobalAveragePool", net("Unsqueeze", "x", axes=[1])), axes=[2, 3])
    else:
        y = net(
            "Squeeze", net("GlobalAveragePool", net("Unsqueeze", "x", net.const([1]))), net.const([2, -1])
        )
    check(net.model(y), (2, 3, 4))


def test_squeeze_without_axes_drops_every_dimension_of_one() -> None:
    net = Net(3, 4, 5, 6)
    check(net.model(net("Squeeze", net("GlobalAveragePool", "x"))), (3, 4, 5, 6))


@pytest.mark.parametrize("op,mode", [("DepthToSpace", "DCR"), ("DepthToSpace", "CRD"), ("SpaceToDepth", "")])
def test_pixel_shuffle(op: str, mode: str) -> None:
    net = Net(2, 8, 4, 6)
    attrs = {"mode": mode} if mode else {}
    y = net(op, net("Conv", "x", net.weight(8, 8, 1, 1)), blocksize=2, **attrs)
    check(net.model(net("Relu", y)), (2, 8, 4, 6))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 6), (4, 3)])
def test_batch_normalization_alone(shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    stats = [net.const(net.rng.uniform(0.5, 1.5, 3), n) for n in ("gamma", "beta", "mean", "var")]
    graph = check(net.model(net("BatchNormalization", "x", *stats, epsilon=1e-3)), shape)
    assert ops(graph) == ["Mul", "Add"] and set(graph.constants) == {"gamma", "beta"}


def test_batch_normalization_is_folded_into_its_convolution() -> None:
    net = Net(1, 3, 6, 6)
    graph = check(net.model(net.conv_bn("x", (4, 3, 3, 3))), (1, 3, 6, 6))
    assert ops(graph) == ["Conv"]


def test_batch_normalization_is_folded_into_its_gemm() -> None:
    net = Net(5, 3)
    y = net("Gemm", "x", net.weight(4, 3, name="w"), net.weight(4, name="b"), transB=1)
    y = net("BatchNormalization", y, *(net.const(net.rng.uniform(0.5, 1.5, 4)) for _ in range(4)))
    graph = check(net.model(y), (5, 3))
    assert ops(graph) == ["Gemm"] and set(graph.constants) == {"w", "b"}


def test_batch_normalization_is_not_folded_where_something_else_reads_the_convolution() -> None:
    net = Net(1, 3, 6, 6)
    y = net("Conv", "x", net.weight(4, 3, 1, 1))
    z = net("BatchNormalization", y, *(net.const(net.rng.uniform(0.5, 1.5, 4)) for _ in range(4)))
    graph = check(net.model(net("Add", y, z)), (1, 3, 6, 6))
    assert ops(graph) == ["Conv", "Mul", "Add", "Add"]


def test_dropout_and_identity_leave_no_trace() -> None:
    net = Net(2, 3)
    y = net("Identity", net("Dropout", net("Relu", "x")))
    assert ops(check(net.model(y), (2, 3))) == ["Clip"]
