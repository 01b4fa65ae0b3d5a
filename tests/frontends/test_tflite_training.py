"""Networks from TFLite train: with their own int8 head or a new one, in the emitted C program."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.tflite_models import SAME, Model, random_samples
from tests.shared_files import shared
from trainlet import load
from trainlet.api import Settings, build, derive
from trainlet.data.transform import InputTransform
from trainlet.errors import SchemeError
from trainlet.ir import Graph, interpret
from trainlet.scheme import layers, replace_head, without_softmax

TINY, MOBILE = "data/mlperf_tiny/models", "data/mobilenet_tflite"
RNG = np.random.default_rng(4)


def small(tmp_path, dtype: str) -> Graph:
    """Convolution, depthwise convolution, residual sum, mean, fully connected layer, softmax."""
    m, z = Model(), (128 if dtype == "uint8" else 0)

    def weight(name: str, shape: tuple[int, ...], outputs: int, axis: int = 0) -> int:
        data = RNG.integers(z - 100, z + 100, shape)
        if dtype == "uint8":
            return m.tensor(name, shape, dtype, 0.004, 120, data)
        return m.tensor(name, shape, dtype, RNG.uniform(0.003, 0.005, outputs), 0, data, axis)

    def bias(name: str, outputs: int) -> int:
        return m.tensor(name, (outputs,), "int32", 2e-4, 0, RNG.integers(-500, 500, outputs))

    window = {"padding": SAME, "strideH": 1, "strideW": 1}
    x = m.input((1, 6, 6, 3), dtype, 0.05, z)
    y = m.tensor("conv", (1, 6, 6, 8), dtype, 0.02, z - 128)
    m.add("CONV_2D", [x, weight("conv/w", (8, 3, 3, 3), 8), bias("conv/b", 8)], y, "Conv2D", **window)
    d = m.tensor("depthwise", (1, 6, 6, 8), dtype, 0.03, z - 100)
    m.add(
        "DEPTHWISE_CONV_2D", [y, weight("dw/w", (1, 3, 3, 8), 8, 3), bias("dw/b", 8)], d, "DepthwiseConv2D",
        depthMultiplier=1, **window,
    )  # fmt: skip
    s = m.add("ADD", [y, d], m.tensor("sum", (1, 6, 6, 8), dtype, 0.035, z - 90), "Add")
    axes = m.tensor("axes", (2,), "int32", data=np.array([1, 2]))
    p = m.add("MEAN", [s, axes], m.tensor("mean", (1, 8), dtype, 0.03, z - 90), "Reducer")
    w = m.tensor("fc/w", (4, 8), dtype, 0.02, z, RNG.integers(z - 100, z + 100, (4, 8)))
    f = m.add(
        "FULLY_CONNECTED", [p, w, bias("fc/b", 4)], m.tensor("fc", (1, 4), dtype, 0.05, z), "FullyConnected"
    )
    probabilities = m.tensor("softmax", (1, 4), dtype, 1 / 256, z - 128)
    return load(m.save(tmp_path, m.add("SOFTMAX", [f], probabilities, "Softmax", beta=1.0)))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("classes", [None, 3])
def test_the_c_program_trains_as_the_interpreter_does(tmp_path, dtype, classes):
    graph = small(tmp_path, dtype)
    settings = Settings(scheme="full", classes=classes)
    step, host = derive(graph, settings).functions["step"], build(graph, settings)
    x, state = graph.inputs[0].name, None
    for i, sample in enumerate(random_samples(graph, 4)):
        label = np.array([i % 3], np.int32)
        expected = interpret(step, {x: sample[None], "label": label, "lr": [0.02]}, state)
        state = expected.state
        loss = host.step(sample[None], label, 0.02)
        assert loss == pytest.approx(float(expected.outputs[0][0]), rel=1e-5)
    found = host.tensors()
    assert set(state) == set(found)
    assert all(np.allclose(found[k], state[k], rtol=1e-4, atol=1e-4) for k in state)
    assert any(not np.array_equal(state[k], t.data) for k, t in step.state.items())


def test_training_reads_logits_and_drops_the_softmax(tmp_path):
    graph = small(tmp_path, "int8")
    assert {"Softmax"} & {n.op for n in graph.nodes}
    trimmed = without_softmax(graph)
    assert [n.op for n in trimmed.nodes[-2:]] == ["Requantize", "DequantizeLinear"]
    assert "Softmax" not in {n.op for n in derive(graph, Settings()).functions["step"].nodes}
    assert without_softmax(trimmed) == trimmed


def test_a_new_head_is_float_and_keeps_the_names(tmp_path):
    graph = replace_head(small(tmp_path, "int8"), 7)
    *_, dequantize, gemm = graph.nodes
    assert (dequantize.op, gemm.op, gemm.output.shape) == ("DequantizeLinear", "Gemm", (1, 7))
    assert graph.constants["fc/w"].value.shape == (7, 8)
    assert [x.weight.name for x in layers(graph) if x.is_head] == ["fc/w"]
    assert "fc/w/scale" not in graph.constants


def test_a_network_of_convolutions_alone_keeps_its_head(tmp_path):
    m = Model()
    x = m.input((1, 4, 4, 2))
    w = m.tensor("w", (3, 1, 1, 2), "int8", np.full(3, 0.01), 0, np.ones((3, 1, 1, 2)))
    y = m.add("CONV_2D", [x, w], m.tensor("y", (1, 4, 4, 3), "int8", 0.1), "Conv2D", strideH=1, strideW=1)
    with pytest.raises(SchemeError, match="no classifier of one vector"):
        replace_head(load(m.save(tmp_path, y)), 2)


def mean_losses(
    graph: Graph, settings: Settings, x: np.ndarray, y: np.ndarray, lr: float, epochs: int
) -> list[float]:
    host = build(graph, settings)
    return [
        float(np.mean([host.step(x[i : i + 1], y[i : i + 1], lr) for i in range(len(x))]))
        for _ in range(epochs)
    ]


def coarse_prototypes(graph: Graph, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples around one random image a class, of large squares."""
    rng, shape = np.random.default_rng(0), graph.inputs[0].shape[1:]
    labels = rng.integers(0, classes, count).astype(np.int32)
    coarse = rng.integers(-128, 128, (classes, *(-(-n // 16) if n > 16 else n for n in shape)))
    for axis, n in enumerate(shape, 1):
        coarse = np.repeat(coarse, 16, axis).take(range(n), axis) if n > 16 else coarse
    samples = coarse[labels] + rng.normal(0, 20, (count, *shape))
    return np.clip(np.rint(samples), -128, 127).astype(np.int8), labels


@pytest.mark.shared
@pytest.mark.parametrize(
    "file, scheme, lr",
    [
        (f"{TINY}/pretrainedResnet_quant.tflite", "last:4", 0.01),
        (f"{TINY}/vww_96_int8.tflite", "last:2", 0.1),
        (f"{MOBILE}/mobilenet_v1_0.25_128_quant.tflite", "last:2", 0.002),
    ],
)
def test_the_loss_falls_with_a_new_head(file, scheme, lr):
    graph = load(shared(file))
    x, y = coarse_prototypes(graph, 4, 32)
    losses = mean_losses(graph, Settings(scheme=scheme, classes=4), x, y, lr, 6)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.shared
@pytest.mark.parametrize(
    "file",
    [
        f"{TINY}/pretrainedResnet_quant.tflite",
        f"{TINY}/vww_96_int8.tflite",
        f"{MOBILE}/mobilenet_v1_0.25_128_quant.tflite",
    ],
)
def test_pixels_go_in_as_they_are(file):
    transform = InputTransform.of(load(shared(file)).inputs[0])
    pixels = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, 3)
    assert np.array_equal(transform(pixels).astype(int), pixels.astype(int) - 128)


@pytest.mark.shared
def test_the_autoencoder_learns_new_sounds():
    graph = load(shared(f"{TINY}/ad01_int8.tflite"))
    x, _ = coarse_prototypes(graph, 4, 32)
    quant = graph.inputs[0].quant
    y = (x.astype(np.float32) - quant.zero_point) * np.float32(quant.scale)
    losses = mean_losses(graph, Settings(scheme="last:2", loss="mean-squared-error"), x, y, 1e-4, 4)
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.shared
@pytest.mark.parametrize(
    "scheme, classes, lr", [("head", 12, 0.05), ("last:2", 12, 0.02), ("last:2", None, 0.01)]
)
def test_keyword_spotting_learns_from_real_speech(scheme, classes, lr):
    with np.load(shared("data/mlperf_tiny/kws01/kws01.npz")) as held:
        x, y = held["x"][..., None], held["y"].astype(np.int32)
    graph = load(shared(f"{TINY}/kws_ref_model.tflite"))
    settings = Settings(scheme=scheme, classes=classes)
    host = build(graph, settings)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:700], order[700:]
    losses = [np.mean([host.step(x[[i]], y[[i]], lr) for i in train]) for _ in range(3)]
    correct = [host.predict(x[[i]])[0].argmax() == y[i] for i in test]
    assert losses[-1] < 0.9 * losses[0]
    assert np.mean(correct) > 0.85
