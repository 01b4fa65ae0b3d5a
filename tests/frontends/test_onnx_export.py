"""Every inference op through ONNX: onnxruntime against the interpreter, int8 to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontends.onnx_models import Net, assert_close, runtime, save
from tests.shared_files import shared
from trainlet.errors import ModelError
from trainlet.frontends.archive import load_archive
from trainlet.frontends.onnx import load_onnx, load_onnx_with_origin
from trainlet.frontends.onnx_export import export_onnx
from trainlet.frontends.onnx_export_int8 import exact_digits
from trainlet.frontends.onnx_writer import EXPORTERS
from trainlet.ir import Graph, GraphBuilder, Quant, interpret
from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops import OPS
from trainlet.quantize import quantize

FEW = settings(max_examples=20, deadline=None)
X8, Y8 = Quant(0.05, -3), Quant(0.07, 5)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


def exported(graph: Graph, folder: Path, feeds: Mapping[str, np.ndarray], **options: Any) -> list[np.ndarray]:
    """onnxruntime's results for the exported graph, given inputs in our layout and returned in it.

    Tests use shapes that tell channels first from last."""
    path = folder / "graph.onnx"
    export_onnx(graph, path, **options)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    moved = {}
    for put, value in zip(session.get_inputs(), graph.inputs, strict=True):
        array = feeds[value.name]
        moved[put.name] = array if tuple(put.shape) == array.shape else np.moveaxis(array, -1, 1)
    results = session.run(None, moved)
    return [
        np.moveaxis(a, 1, -1) if a.shape != v.shape else a
        for a, v in zip(results, graph.outputs, strict=True)
    ]


def one(
    op: str,
    arrays: list[np.ndarray | None],
    attrs: Attrs | None = None,
    *,
    quant: Quant | None = None,
    quants: dict[int, Quant] | None = None,
    computed: int = 1,
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of one node: the first `computed` operands are inputs, the others constants."""
    b = GraphBuilder("one")
    values: list[Value | None] = []
    for i, array in enumerate(arrays):
        given_quant = (quants or {}).get(i)
        if array is None:
            values.append(None)
        elif i < computed:
            kind = {"f": "f32", "i": "s8"}[array.dtype.kind] if array.dtype != np.int32 else "s32"
            values.append(b.input(f"x{i}", kind, array.shape, given_quant))
        else:
            values.append(b.constant(f"c{i}", array, quant=given_quant))
    y = b.add(op, values, attrs, name="y", quant=quant, source=f"one:{op}")
    return b.build([y]), {f"x{i}": a for i, a in enumerate(arrays) if i < computed and a is not None}


def check(folder: Path, graph: Graph, feeds: dict[str, np.ndarray]) -> None:
    want = interpret(graph, feeds).outputs
    for got, expected in zip(exported(graph, folder, feeds), want, strict=True):
        assert got.dtype == expected.dtype
        if expected.dtype.kind == "f":
            assert_close(got, expected)
        else:
            np.testing.assert_array_equal(got, expected)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def bytes_(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def test_every_op_that_is_not_for_training_has_an_exporter() -> None:
    families = ("gradients", "optimizers")
    training = {n for n, row in OPS.items() if n.endswith("Grad") or row.run.__module__.endswith(families)}
    overlays = {"OverlayChannels", "StreamRows"}  # resolved when the file is written; made by a pass
    assert set(OPS) - set(EXPORTERS) <= training | overlays | {"BatchNormTrain"}


@FEW
@given(seeds, st.integers(0, 2), st.sampled_from([1, 2]), st.booleans(), st.booleans())
def test_conv_integer_and_requantize_are_exact(
    folder: Path, seed: int, rank: int, groups: int, master: bool, fused: bool
) -> None:
    rng = np.random.default_rng(seed)
    space, kernel = (5, 6)[:rank], (3, 2)[:rank]
    groups = groups if rank else 1
    x, w = bytes_(rng, 2, *space, 4), bytes_(rng, 6, *kernel, 4 // groups)
    bias: np.ndarray = rng.integers(-3000, 3000, 6).astype(np.int32)
    if master:
        w, bias = (
            (w + rng.uniform(-3, 3, w.shape)).astype(np.float32),
            bias.astype(np.float32) + np.float32(0.5),
        )
    scale = rng.uniform(0.001, 0.02, 6).astype(np.float32)
    attrs: Attrs = {
        "pads": (1,) * (2 * rank),
        "strides": (2,) * rank,
        "dilations": (1,) * rank,
        "groups": groups,
    }
    b = GraphBuilder("net")
    value = b.input("x", "s8", x.shape, X8)
    weight = [b.constant("w", w), b.constant("b", bias), b.constant("s", scale)]
    if fused:
        y = b.add("QLinearConv", [value, *weight], attrs, quant=Y8)
    else:
        acc = b.add("ConvInteger", [value, weight[0]], attrs)
        y = b.add("Requantize", [acc, *weight[1:]], quant=Y8)
    check(folder, b.build([y]), {"x": x})


def test_accumulators_beyond_2_to_24_round_alike(folder: Path) -> None:
    """Biases of dead channels reach 2^31."""
    rng = np.random.default_rng(0)
    x, w = bytes_(rng, 1, 6, 5, 3), bytes_(rng, 4, 1, 1, 3)
    bias = np.array([2**31 - 1, -(2**31), 2**24 + 1, 7], np.int32)
    scale = np.array([1e-8, 1e-8, 1e-6, 0.01], np.float32)
    graph, feeds = one("QLinearConv", [x, w, bias, scale], quant=Y8, quants={0: X8})
    check(folder, graph, feeds)


@FEW
@given(seeds, st.sampled_from(["QLinearAdd", "QLinearMul"]), st.booleans())
def test_int8_arithmetic_is_exact(folder: Path, seed: int, op: str, gate: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 1, 1, 5) if gate and op == "QLinearMul" else (2, 3, 4, 5)
    quants = {0: Quant(float(rng.uniform(0.01, 0.1)), 3), 1: Quant(float(rng.uniform(0.01, 0.1)), -9)}
    out = Quant(float(rng.uniform(0.001, 0.1)), 11)
    graph, feeds = one(
        op, [bytes_(rng, 2, 3, 4, 5), bytes_(rng, *shape)], quant=out, quants=quants, computed=2
    )
    check(folder, graph, feeds)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("kernel", [(), (3, 2), (2,)])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("integer", [False, True])
def test_pools(folder: Path, op: str, kernel: tuple[int, ...], include: bool, integer: bool) -> None:
    rng = np.random.default_rng(1)
    rank = len(kernel) or 2
    make = bytes_ if integer else floats
    attrs: Attrs = {"kernel": kernel, "count_include_pad": include}
    if kernel:
        attrs = {**attrs, "strides": (2,) * rank, "pads": tuple([1] * rank + [0] * rank)}
    x = make(rng, 2, *(7, 8)[:rank], 5)
    quant = X8 if integer else None
    graph, feeds = one(op, [x], attrs, quant=quant, quants={0: X8} if integer else {})
    check(folder, graph, feeds)


def test_integer_mean_rounds_half_to_even(folder: Path) -> None:
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    graph, feeds = one("AveragePool", [x], {"kernel": (2, 2), "strides": (1, 1)}, quant=X8, quants={0: X8})
    check(folder, graph, feeds)


def test_lookup_quantize_and_dequantize(folder: Path) -> None:
    rng = np.random.default_rng(2)
    x = np.arange(-128, 128, dtype=np.int8).reshape(2, 4, 8, 4)
    check(folder, *one("QLinearLookup", [x, bytes_(rng, 256)], quant=Y8, quants={0: X8}))
    check(folder, *one("DequantizeLinear", [x], quants={0: X8}))
    check(
        folder,
        *one("QuantizeLinear", [(rng.normal(size=(5, 77)) * 5).astype(np.float32)], quant=Quant(0.03, 7)),
    )
    halves = (np.arange(-300, 300, dtype=np.float32) * 0.25).reshape(3, 200)
    check(folder, *one("QuantizeLinear", [halves], quant=Quant(0.5, 1)))
    check(folder, *one("RoundMaster", [halves * 2]))


@pytest.mark.parametrize("integer", [False, True])
def test_moves(folder: Path, integer: bool) -> None:
    rng = np.random.default_rng(3)
    make, quants = (bytes_, {0: X8, 1: X8}) if integer else (floats, {})
    x, keep = make(rng, 2, 3, 4, 5), X8 if integer else None
    check(folder, *one("Reshape", [x], {"shape": (6, 20)}, quant=keep, quants=quants))
    check(folder, *one("Transpose", [x], {"perm": (2, 0, 3, 1)}, quant=keep, quants=quants))
    check(
        folder, *one("Pad", [x], {"pads": (0, 1, 2, 0, 0, 0, 1, 3), "value": -3}, quant=keep, quants=quants)
    )
    check(
        folder, *one("Slice", [x], {"starts": (0, 1, 0, 2), "sizes": (2, 2, 4, 3)}, quant=keep, quants=quants)
    )
    both = [x, make(rng, 2, 3, 2, 5)]
    check(folder, *one("Concat", both, {"axis": 2}, quant=keep, quants=quants, computed=2))
    check(folder, *one("TakeChannels", [x, np.array([0, 3], np.uint16)], quant=keep, quants=quants))


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 6), (2, 3, 4, 6)])
def test_float_arithmetic(folder: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x, c, w, b = floats(rng, *shape), floats(rng, 6), floats(rng, 3, 6), floats(rng, 3)
    for op in ("Add", "Sub", "Mul"):
        check(folder, *one(op, [x, c]))
        check(folder, *one(op, [c, x], computed=2))
        check(folder, *one(op, [x, floats(rng, *shape)], computed=2))
    for op in ("Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Softmax", "Erf", "Silu", "Gelu", "GeluTanh"):
        check(folder, *one(op, [x]))
    check(folder, *one("Scale", [x], {"factor": -1.7}))
    for bounds in ({"lo": 0.0}, {"lo": -0.5, "hi": 0.5}, {"hi": 0.1}, {}):
        check(folder, *one("Clip", [x], bounds))
        check(folder, *one("Gemm", [x, w, b], bounds))
    check(folder, *one("Gemm", [x, w]))
    check(folder, *one("ReduceSum", [x], {"shape": (6,)}))
    check(folder, *one("ReduceSum", [x], {"shape": (2, *(1,) * (len(shape) - 2), 6)}))


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 6), (2, 3, 4, 6)])
def test_normalizations_and_repetition(folder: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    x, gamma, beta, mean = floats(rng, *shape), floats(rng, 6), floats(rng, 6), floats(rng, 6)
    var = rng.uniform(0.5, 2, 6).astype(np.float32)
    for scale in ([gamma, beta], [gamma], []):
        check(folder, *one("LayerNormalization", [x, *scale], {"eps": 1e-3}))
    for pair in ((gamma, beta), (None, None)):
        check(folder, *one("BatchNormalization", [x, *pair, mean, var], {"eps": 1e-3}))
    single = x[:, :1] if len(shape) > 2 else x[:1]
    check(folder, *one("Expand", [single], {"shape": shape}))


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_matrix_products(folder: Path, trans_a: bool, trans_b: bool) -> None:
    rng = np.random.default_rng(5)
    a = floats(rng, 2, *((4, 3) if trans_a else (3, 4)))
    b = floats(rng, 2, *((5, 4) if trans_b else (4, 5)))
    check(folder, *one("MatMul", [a, b], {"trans_a": trans_a, "trans_b": trans_b}, computed=2))


def test_losses(folder: Path) -> None:
    rng = np.random.default_rng(6)
    z, t = floats(rng, 4, 5), rng.uniform(size=(4, 5)).astype(np.float32)
    check(folder, *one("SoftmaxCrossEntropy", [z, np.array([0, 4, 2, 2], np.int32)], computed=2))
    check(folder, *one("SigmoidCrossEntropy", [z, t], computed=2))
    check(folder, *one("MeanSquaredError", [z, t], computed=2))


def residual_block() -> tuple[Graph, np.ndarray]:
    """Convolutions with fused clamps, a skip connection with a constant per channel, a head."""
    rng = np.random.default_rng(7)
    b = GraphBuilder("block")
    x = b.input("x", "f32", (2, 6, 6, 4))
    w1, w2 = (
        b.constant("conv1/weight", floats(rng, 4, 3, 3, 4)),
        b.parameter("conv2/weight", floats(rng, 4, 1, 1, 4)),
    )
    y = b.add(
        "Conv", [x, w1, b.constant("conv1/bias", floats(rng, 4))], {"pads": (1,) * 4, "lo": 0.0, "hi": 6.0}
    )
    y = b.add("Mul", [b.add("Conv", [y, w2]), b.constant("gain", floats(rng, 4))])
    y = b.add("AveragePool", [b.add("Add", [x, y])], {"kernel": ()})
    y = b.add(
        "Gemm",
        [b.add("Reshape", [y], {"shape": (2, 4)}), b.parameter("head", floats(rng, 3, 4))],
        name="logits",
    )
    return b.build([y]), floats(rng, 2, 6, 6, 4)


def test_a_clean_network_has_no_transposes(tmp_path: Path) -> None:
    graph, x = residual_block()
    assert_close(exported(graph, tmp_path, {"x": x})[0], interpret(graph, {"x": x}).outputs[0])
    model = onnx.load(str(tmp_path / "graph.onnx"))
    assert [n.op_type for n in model.graph.node].count("Transpose") == 0
    names = {t.name for t in model.graph.initializer}
    assert {"conv1/weight", "conv1/bias", "conv2/weight", "head", "gain"} <= names
    assert model.graph.output[0].name == "logits" and model.opset_import[0].version == 17


def test_state_replaces_what_was_trained(tmp_path: Path) -> None:
    graph, x = residual_block()
    rng = np.random.default_rng(8)
    state = {"head": floats(rng, 3, 4), "conv2/weight": floats(rng, 4, 1, 1, 4)}
    got = exported(graph, tmp_path, {"x": x}, state=state)[0]
    assert_close(got, interpret(graph, {"x": x}, state=state).outputs[0])
    with pytest.raises(ModelError, match="head was given"):
        export_onnx(graph, tmp_path / "bad.onnx", {"head": floats(rng, 4, 4)})


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("integer", [False, True])
def test_overlaid_channels_are_written_into_the_weight(folder: Path, groups: int, integer: bool) -> None:
    rng = np.random.default_rng(9)
    which = np.array([0, 2], np.uint16)
    shape = (4, 3, 3, 1) if groups == 4 else (6, 3, 3, 4)
    part = (2, *shape[1:]) if groups == 4 else (*shape[:-1], 2)
    if integer:
        trained = (bytes_(rng, *part) + 0.25).astype(np.float32)
        arrays = [bytes_(rng, 1, 5, 5, 4), bytes_(rng, *shape), trained, which]
        check(folder, *one("ConvInteger", arrays, {"groups": groups}, quants={0: X8}))
    else:
        arrays = [floats(rng, 1, 5, 5, 4), floats(rng, *shape), None, floats(rng, *part), which]
        check(folder, *one("Conv", arrays, {"groups": groups}))


def test_overlays_of_their_own_are_resolved(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    b = GraphBuilder("overlay")
    x = b.input("x", "f32", (2, 4))
    base, trained = b.constant("w", floats(rng, 3, 4)), b.parameter("w/trained", floats(rng, 3, 2))
    w = b.add("OverlayChannels", [base, trained, b.constant("w/channels", np.array([1, 3], np.uint16))])
    graph = b.build([b.add("Gemm", [x, w])])
    check(tmp_path, graph, {"x": floats(rng, 2, 4)})


def test_origin_gives_the_users_input_and_output_back(tmp_path: Path) -> None:
    net = Net(1, 8, 8, 3)  # channels last in the user's model
    y = net("Conv", net("Transpose", "x", perm=[0, 3, 1, 2]), net.weight(4, 3, 3, 3))
    path = save(net.model(net("Transpose", y, perm=[0, 2, 3, 1])), tmp_path)
    graph, origin = load_onnx_with_origin(path)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    export_onnx(graph, tmp_path / "back.onnx", origin=origin)
    assert_close(runtime(tmp_path / "back.onnx", x), runtime(path, x))
    export_onnx(load_onnx(path), tmp_path / "plain.onnx")  # nothing says so: channels first
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    assert_close(runtime(tmp_path / "plain.onnx", first).transpose(0, 2, 3, 1), runtime(path, x))


def test_training_graphs_are_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    graph, _ = one("SigmoidGrad", [floats(rng, 2, 3), floats(rng, 2, 3)], computed=2)
    with pytest.raises(ModelError, match="SigmoidGrad at one:SigmoidGrad"):
        export_onnx(graph, tmp_path / "bad.onnx")


def test_a_mask_that_is_read_is_refused(tmp_path: Path) -> None:
    b = GraphBuilder("masked")
    node = b.add_node("Clip", [b.input("x", "f32", (2, 3))], {"lo": 0.0}, outputs=2)
    with pytest.raises(ModelError, match="clamp mask"):
        export_onnx(b.build(node.outputs), tmp_path / "bad.onnx")


@given(seeds, st.sampled_from([7, 255]), st.integers(1, 3000), st.integers(0, 32767))
@settings(max_examples=40, deadline=None)
def test_weights_are_split_until_float32_sums_are_exact(
    seed: int, reach: int, width: int, largest: int
) -> None:
    w = np.random.default_rng(seed).integers(-largest - 1, largest + 1, (2, width))
    digits = exact_digits(w, reach)
    np.testing.assert_array_equal(sum(factor * digit for factor, digit in digits), w)
    for _, digit in digits:
        assert np.abs(digit).sum(1).max() * reach <= 2**24


def test_sums_beyond_2_to_24_are_exact(folder: Path) -> None:
    rng = np.random.default_rng(12)
    x, w = np.full((2, 700), 127, np.int8), np.full((3, 700), 127, np.int8)
    w[1, 1::2], w[2] = -128, rng.integers(-128, 128, 700)
    graph, feeds = one("ConvInteger", [x, w], quants={0: Quant(0.1, -128)})
    assert interpret(graph, feeds).outputs[0].max() > 2**24
    check(folder, graph, feeds)


def test_masters_may_leave_the_int8_range(folder: Path) -> None:
    rng = np.random.default_rng(13)
    w = rng.uniform(-400, 400, (5, 3, 3, 2)).astype(np.float32)
    bias, scale = rng.uniform(-900, 900, 5).astype(np.float32), np.full(5, 0.0005, np.float32)
    arrays = [bytes_(rng, 1, 7, 6, 2), w, bias, scale]
    check(folder, *one("QLinearConv", arrays, quant=Y8, quants={0: X8}))


def assert_same_integers(graph: Graph, x: np.ndarray, folder: Path) -> None:
    """Every int8 value of the network in onnxruntime, all optimizations on, is the interpreter's."""
    values = interpret(graph, {graph.inputs[0].name: np.ascontiguousarray(np.moveaxis(x, 1, -1))}).values
    export_onnx(graph, folder / "int8.onnx")
    model = onnx.load(str(folder / "int8.onnx"))
    made = {name for node in model.graph.node for name in node.output}
    integers = [v.name for n in graph.nodes for v in n.outputs if v.dtype == "s8" and v.name in made]
    known = {v.name for v in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in integers if n not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [v.name for v in session.get_outputs()]
    got = dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))
    assert len(integers) > 10
    for name in integers:
        first = got[name].ndim > 2
        np.testing.assert_array_equal(
            np.moveaxis(got[name], 1, -1) if first else got[name], values[name], name
        )
    output = graph.outputs[0].name
    assert_close(got[names[0]], values[output])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3"])
def test_reference_networks_export_to_the_same_integers(name: str, tmp_path: Path) -> None:
    graph = load_archive(shared(f"reference/models/{name}.json"))
    assert_same_integers(graph, np.load(shared(f"reference/{name}_b1_full.npz"))["x_i8"], tmp_path)


def test_a_quantized_network_exports_to_the_same_integers(tmp_path: Path) -> None:
    net = Net(2, 3, 16, 16)
    y = net("HardSwish", net.conv_bn("x", (8, 3, 3, 3), pads=[1] * 4))
    gate = net("Sigmoid", net("Conv", net("GlobalAveragePool", y), net.weight(8, 8, 1, 1)))
    y = net.conv_bn(net("Mul", y, gate), (8, 1, 5, 5), "relu6", group=8, pads=[2] * 4)
    y = net("Concat", net("Add", y, net.conv_bn(y, (8, 8, 1, 1))), y, axis=1)
    y = net("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4)
    y = net("Flatten", net("ReduceMean", y, axes=[2, 3]))
    path = save(net.model(net("Gemm", y, net.weight(5, 16), net.weight(5), transB=1)), tmp_path)
    rng = np.random.default_rng(14)
    graph = quantize(load_onnx(path), floats(rng, 8, 16, 16, 3))
    assert_same_integers(graph, bytes_(rng, 2, 3, 16, 16), tmp_path)


def test_user_names_that_ours_cannot_hold_come_back(tmp_path: Path) -> None:
    net = Net(1, 3)
    net.inputs[0].name = "input:0"
    net.nodes.append(onnx.helper.make_node("Relu", ["input:0"], ["scores:0"], name="top"))
    path = save(net.model("scores:0"), tmp_path)
    graph, origin = load_onnx_with_origin(path)
    export_onnx(graph, tmp_path / "back.onnx", origin=origin)
    model = onnx.load(str(tmp_path / "back.onnx"))
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("input:0", "scores:0")
    x = floats(np.random.default_rng(0), 1, 3)
    assert_close(runtime(tmp_path / "back.onnx", x), np.maximum(x, 0))
