"""Published TFLite networks compute the same integers as TFLite's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.tflite_models import as_int8, ours, random_samples, reference
from tests.shared_files import shared
from trainlet import load
from trainlet.api import Settings, build, evaluate
from trainlet.ir import Graph
from trainlet.ir.text import load_graph, save_graph

pytestmark = pytest.mark.shared
TINY, MOBILE = "data/mlperf_tiny/models", "data/mobilenet_tflite"
NETWORKS = [
    (f"{TINY}/ad01_int8.tflite", "int8", 100),
    (f"{TINY}/pretrainedResnet_quant.tflite", "int8", 4),
    (f"{TINY}/vww_96_int8.tflite", "int8", 4),
    (f"{MOBILE}/mobilenet_v1_0.25_128_quant.tflite", "uint8", 2),
    (f"{MOBILE}/mobilenet_v1_0.5_160_quant.tflite", "uint8", 2),
    pytest.param(f"{MOBILE}/mobilenet_v2_1.0_224_quant.tflite", "uint8", 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("file, dtype, count", NETWORKS)
def test_no_output_differs_on_random_inputs(file, dtype, count):
    graph = load(shared(file))
    samples = random_samples(graph, count, dtype)
    assert np.array_equal(ours(graph, samples), reference(shared(file), samples))


@pytest.mark.parametrize("file, dtype, count", NETWORKS)
def test_the_c_program_gives_the_same_outputs(file, dtype, count):
    graph = load(shared(file))
    host = build(graph, Settings(loss="mean-squared-error"))
    samples = random_samples(graph, 2, dtype, seed=1)
    outputs = np.array([host.predict(s[None])[0] for s in as_int8(samples)])
    assert np.array_equal(to_integers(graph, outputs, dtype), reference(shared(file), samples))


def to_integers(graph: Graph, outputs: np.ndarray, dtype: str) -> np.ndarray:
    quant = graph.nodes[-1].inputs[0].quant
    integers = np.rint(outputs / np.float32(quant.scale)).astype(int) + quant.zero_point
    return integers + 128 if dtype == "uint8" else integers


def test_keywords_on_a_thousand_real_samples():
    file = f"{TINY}/kws_ref_model.tflite"
    with np.load(shared("data/mlperf_tiny/kws01/kws01.npz")) as held:
        samples, labels = held["x"][..., None], held["y"]
    graph = load(shared(file))
    expected = reference(shared(file), samples)
    assert np.array_equal(ours(graph, samples[:50]), expected[:50])
    host = build(graph, Settings(loss="mean-squared-error"))
    outputs = np.concatenate([host.predict(s[None]) for s in samples])
    found = to_integers(graph, outputs, "int8")
    assert np.array_equal(found, expected)
    assert (found.argmax(1) == labels).mean() > 0.9


def test_a_network_survives_its_text_form(tmp_path):
    graph = load(shared(f"{TINY}/kws_ref_model.tflite"))
    assert load_graph(save_graph(graph, tmp_path / "kws.tl")) == graph


def test_constants_keep_the_users_names():
    graph = load(shared(f"{MOBILE}/mobilenet_v1_0.25_128_quant.tflite"))
    assert graph.inputs[0].name == "input"
    assert "MobilenetV1/MobilenetV1/Conv2d_0/BatchNorm_Fold/bias" in graph.constants
    weight = graph.constants["MobilenetV1/MobilenetV1/Conv2d_0/Conv2D_Fold"].value
    assert (weight.dtype, weight.shape, weight.quant.zero_point) == ("s8", (8, 3, 3, 3), 157 - 128)


@pytest.mark.slow
def test_resnet_recognises_photographs():
    file = shared(f"{TINY}/pretrainedResnet_quant.tflite")
    assert evaluate(file, shared("data/cifar10/cifar10.npz"))["accuracy"] > 0.86
