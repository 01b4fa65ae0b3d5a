"""Every operator of the TFLite frontend against TFLite's reference kernels, on random inputs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.tflite_models import RELU, RELU6, SAME, VALID, Model, check

RNG = np.random.default_rng(1)
KINDS = ("int8", "uint8")


def integers(dtype: str, *shape: int) -> np.ndarray:
    low = 0 if dtype == "uint8" else -127
    return RNG.integers(low, low + 255, shape).astype(dtype)


def zero(dtype: str, value: int) -> int:
    """The same zero point in either type."""
    return value + 128 if dtype == "uint8" else value


def weight(m: Model, dtype: str, shape: tuple[int, ...], outputs: int, axis: int) -> int:
    """int8: a scale per output channel; uint8: one scale and a zero point."""
    if dtype == "int8":
        scales = RNG.uniform(0.004, 0.02, outputs)
        return m.tensor("w", shape, dtype, scales, 0, integers(dtype, *shape), axis)
    return m.tensor("w", shape, dtype, 0.01, 117, integers(dtype, *shape))


def bias(m: Model, outputs: int, scale: float = 0.0005) -> int:
    return m.tensor("b", (outputs,), "int32", scale, 0, RNG.integers(-2000, 2000, outputs))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    "padding, stride, dilation", [(SAME, 1, 1), (SAME, 2, 1), (VALID, 2, 1), (SAME, 1, 2)]
)
def test_convolution(tmp_path, dtype, padding, stride, dilation):
    m = Model()
    x = m.input((1, 9, 8, 5), dtype, 0.05, zero(dtype, -7))
    w = weight(m, dtype, (6, 3, 3, 5), 6, 0)
    sizes = [-(-(n - (0 if padding == SAME else 2)) // stride) for n in (9, 8)]
    y = m.tensor("y", (1, *sizes, 6), dtype, 0.11, zero(dtype, -20))
    fields = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
    m.add("CONV_2D", [x, w, bias(m, 6)], y, "Conv2D", padding=padding, **fields)
    check(m.save(tmp_path, y), dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_convolution(tmp_path, dtype, multiplier):
    m = Model()
    x, outputs = m.input((1, 7, 10, 4), dtype, 0.05, zero(dtype, 11)), 4 * multiplier
    w = weight(m, dtype, (1, 3, 3, outputs), outputs, 3)
    y = m.tensor("y", (1, 4, 5, outputs), dtype, 0.08, zero(dtype, 5))
    fields = {"strideH": 2, "strideW": 2, "depthMultiplier": multiplier}
    m.add("DEPTHWISE_CONV_2D", [x, w, bias(m, outputs)], y, "DepthwiseConv2D", padding=SAME, **fields)
    check(m.save(tmp_path, y), dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("activation", [RELU, RELU6])
def test_fused_activation_narrower_than_the_range(tmp_path, dtype, activation):
    m = Model()
    x = m.input((1, 6, 6, 8), dtype, 0.05, zero(dtype, 0))
    w = weight(m, dtype, (8, 1, 1, 8), 8, 0)
    y = m.tensor("y", (1, 6, 6, 8), dtype, 0.061, zero(dtype, -40))
    m.add(
        "CONV_2D", [x, w, bias(m, 8)], y, "Conv2D", strideH=1, strideW=1, fusedActivationFunction=activation
    )
    graph = check(m.save(tmp_path, y), dtype=dtype)
    attrs = next(n for n in graph.nodes if n.op == "Requantize").attrs
    assert attrs["lo"] == -40
    assert attrs["hi"] == (58 if activation == RELU6 else 127)


@pytest.mark.parametrize("dtype", KINDS)
def test_fully_connected_flattens_its_operand(tmp_path, dtype):
    m = Model()
    x = m.input((1, 2, 3, 4), dtype, 0.05, zero(dtype, -9))
    low = 0 if dtype == "uint8" else -127
    w = m.tensor("w", (10, 24), dtype, 0.012, zero(dtype, 0), RNG.integers(low, low + 255, (10, 24)))
    y = m.tensor("y", (1, 10), dtype, 0.09, zero(dtype, 4))
    m.add("FULLY_CONNECTED", [x, w, bias(m, 10, 0.0006)], y, "FullyConnected")
    check(m.save(tmp_path, y), 200, dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("op", ["ADD", "SUB"])
@pytest.mark.parametrize("activation", [0, RELU])
def test_sum_and_difference(tmp_path, dtype, op, activation):
    m = Model()
    x = m.input((1, 16, 16, 8), dtype, 0.031, zero(dtype, 8))
    w = m.tensor("w", (1, 16, 16, 8), dtype, 0.047, zero(dtype, -5), integers(dtype, 1, 16, 16, 8))
    y = m.tensor("y", (1, 16, 16, 8), dtype, 0.053, zero(dtype, -60))
    m.add(op, [x, w], y, op.capitalize(), fusedActivationFunction=activation)
    check(m.save(tmp_path, y), dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(1, 6, 7, 8), (1, 1, 1, 8), (8,), (1,)])
def test_product_with_a_constant(tmp_path, dtype, shape):
    m = Model()
    x = m.input((1, 6, 7, 8), dtype, 0.031, zero(dtype, 8))
    w = m.tensor("w", shape, dtype, 0.047, zero(dtype, -5), integers(dtype, *shape))
    y = m.tensor("y", (1, 6, 7, 8), dtype, 0.17, zero(dtype, 2))
    m.add("MUL", [x, w], y, "Mul")
    check(m.save(tmp_path, y), dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding, size, activation", [(SAME, 4, 0), (VALID, 3, 0), (VALID, 3, RELU6)])
def test_pools(tmp_path, dtype, op, padding, size, activation):
    m = Model()
    x = m.input((1, 8, 8, 5), dtype, 0.05, zero(dtype, -40))
    y = m.tensor("y", (1, size, size, 5), dtype, 0.05, zero(dtype, -40))
    fields = {"strideH": 2, "strideW": 2, "filterHeight": 4, "filterWidth": 4 if padding == VALID else 3}
    if padding == VALID:
        fields |= {"filterHeight": 4}
    m.add(op, [x], y, "Pool2D", padding=padding, fusedActivationFunction=activation, **fields)
    check(m.save(tmp_path, y), dtype=dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("scale", [0.05, 0.021])
def test_mean_over_height_and_width(tmp_path, dtype, keep, scale):
    m = Model()
    x = m.input((1, 7, 7, 40), dtype, 0.05, zero(dtype, -40))
    axes = m.tensor("axes", (2,), "int32", data=np.array([1, 2]))
    y = m.tensor("y", (1, 1, 1, 40) if keep else (1, 40), dtype, scale, zero(dtype, -12))
    m.add("MEAN", [x, axes], y, "Reducer", keepDims=keep)
    check(m.save(tmp_path, y), 20, dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("op", ["LOGISTIC", "TANH", "HARD_SWISH", "RELU", "RELU6", "QUANTIZE"])
def test_functions_of_one_value(tmp_path, dtype, op):
    scales = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
    m = Model()
    x = m.input((1, 16, 16, 4), dtype, 0.047, zero(dtype, 10))
    scale, z = scales.get(op, (0.033, -60))
    y = m.tensor("y", (1, 16, 16, 4), dtype, scale, zero(dtype, z))
    m.add(op, [x], y, {"HARD_SWISH": "HardSwish", "QUANTIZE": "Quantize"}.get(op, ""))
    check(m.save(tmp_path, y), dtype=dtype, within=1 if op in ("LOGISTIC", "TANH", "HARD_SWISH") else 0)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_softmax(tmp_path, dtype, beta):
    m = Model()
    x = m.input((1, 12), dtype, 0.09, zero(dtype, 20))
    y = m.tensor("y", (1, 12), dtype, 1 / 256, zero(dtype, -128))
    m.add("SOFTMAX", [x], y, "Softmax", beta=beta)
    check(m.save(tmp_path, y), 300, dtype, within=1)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("pads", [((0, 0), (1, 2), (0, 1), (0, 0)), ((0, 0), (1, 1), (1, 1), (0, 1))])
def test_pad_before_a_convolution_and_alone(tmp_path, dtype, pads):
    m = Model()
    x = m.input((1, 6, 6, 4), dtype, 0.05, zero(dtype, 17))
    extra = pads[3][1]
    amounts = m.tensor("pads", (4, 2), "int32", data=np.array(pads))
    padded = [6 + sum(p) for p in pads[1:3]]
    p = m.add(
        "PAD", [x, amounts], m.tensor("padded", (1, *padded, 4 + extra), dtype, 0.05, zero(dtype, 17)), "Pad"
    )
    w = weight(m, dtype, (3, 3, 3, 4 + extra), 3, 0)
    sizes = [(n - 3) // 2 + 1 for n in padded]
    y = m.tensor("y", (1, *sizes, 3), dtype, 0.1, zero(dtype, 0))
    m.add("CONV_2D", [p, w, bias(m, 3)], y, "Conv2D", padding=VALID, strideH=2, strideW=2)
    graph = check(m.save(tmp_path, y), dtype=dtype)
    assert ("Pad" in {n.op for n in graph.nodes}) == bool(extra)


@pytest.mark.parametrize(
    "dtype, scales", [("int8", (0.05, 0.05)), ("uint8", (0.05, 0.05)), ("uint8", (0.05, 0.023))]
)
def test_concatenation(tmp_path, dtype, scales):
    m = Model()
    x = m.input((1, 4, 4, 3), dtype, 0.05, zero(dtype, 2))
    other = m.tensor("c", (1, 4, 4, 2), dtype, scales[1], zero(dtype, 2), integers(dtype, 1, 4, 4, 2))
    y = m.tensor("y", (1, 4, 4, 5), dtype, scales[1], zero(dtype, 2))
    m.add("CONCATENATION", [x, other], y, "Concatenation", axis=3)
    check(m.save(tmp_path, y), dtype=dtype)


def test_squeeze_and_reshape(tmp_path):
    m = Model()
    x = m.input((1, 4, 1, 6))
    s = m.add("SQUEEZE", [x], m.tensor("s", (1, 4, 6), "int8", 0.05, 3), "Squeeze", squeezeDims=[2])
    shape = m.tensor("shape", (2,), "int32", data=np.array([1, 24]))
    y = m.tensor("y", (1, 24), "int8", 0.05, 3)
    m.add("RESHAPE", [s, shape], y, "Reshape", newShape=[1, 24])
    check(m.save(tmp_path, y))


def test_float_at_both_ends(tmp_path):
    m = Model()
    x = m.input((1, 300), "float32", 0.0)
    q = m.add("QUANTIZE", [x], m.tensor("q", (1, 300), "int8", 0.03, -4), "Quantize")
    y = m.add("DEQUANTIZE", [q], m.tensor("y", (1, 300), "float32"), "Dequantize")
    path = m.save(tmp_path, y)
    from tests.frontends.tflite_models import load_tflite, reference
    from trainlet.ir import interpret

    samples = RNG.normal(0, 2, (5, 300)).astype(np.float32)
    graph = load_tflite(path)
    found = np.array([interpret(graph, {"x": s[None]}).outputs[0][0] for s in samples])
    assert np.array_equal(found, reference(path, samples))


def test_from_one_type_of_integers_to_the_other(tmp_path):
    m = Model()
    x = m.input((1, 200), "uint8", 0.05, 128)
    q = m.add("QUANTIZE", [x], m.tensor("q", (1, 200), "int8", 0.05, 0), "Quantize")
    path = m.save(tmp_path, m.add("RELU", [q], m.tensor("y", (1, 200), "int8", 0.05, 0)))
    from tests.frontends.tflite_models import load_tflite, ours, random_samples, reference

    graph = load_tflite(path)
    samples = random_samples(graph, 5, "uint8")
    assert np.array_equal(ours(graph, samples) - 128, reference(path, samples))
    assert [n.op for n in graph.nodes] == ["QLinearLookup", "DequantizeLinear"]
