"""A Keras network, converted by tf2onnx: the folder `tensorflow` is what examples/from_tensorflow.py wrote,
with tensorflow-cpu in an environment of its own. What TensorFlow predicted lies beside the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.frontends.torch_models import close
from tests.train.networks import case, gradients
from trainlet import load
from trainlet.api import Settings, build
from trainlet.ir import interpret
from trainlet.scheme.layers import layers

FOLDER = Path(__file__).parent / "tensorflow"


def test_a_keras_network_predicts_what_tensorflow_does() -> None:
    graph, data = load(FOLDER / "keras_cnn.onnx"), np.load(FOLDER / "keras_cnn.npz")
    assert graph.inputs[0].shape == (1, 24, 24, 3)
    assert not {"Transpose", "BatchNormalization"} & {n.op for n in graph.nodes}
    for x, y in zip(data["x"], data["y"]):
        close(interpret(graph, {graph.inputs[0].name: x[None]}).outputs[0], y[None])


def test_a_keras_network_trains() -> None:
    graph, data = load(FOLDER / "keras_cnn.onnx"), np.load(FOLDER / "keras_cnn.npz")
    found = gradients(case(graph, 0, loss="softmax-cross-entropy"))
    assert {x.weight.name for x in layers(graph)} <= set(found)
    program = build(graph, Settings(scheme="full", batch=4))
    losses = [program.step(data["x"], np.arange(4, dtype=np.int32), 0.2) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
