"""Every activation, gradient and scaled gradient of the published algorithm, on three networks."""

import numpy as np
import pytest

from tests.conformance.vectors import FULL, activation, last_gradient, nhwc, relative, vector
from trainlet.ir import interpret
from trainlet.train import derive

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=FULL)
def run(request):
    v = vector(request.param)
    module = derive(v.graph, v.selection("full"))
    inputs = {"x": v.samples, "label": v.labels, "lr": [0.0]}
    return v, module, interpret(module.functions["step"], inputs)


def test_input_is_pixel_minus_128(run):
    v, _, _ = run
    if "x_i8" in v.arrays:
        assert np.array_equal(nhwc(v.arrays["x_i8"]), v.samples)


def test_no_activation_element_differs(run):
    v, _, result = run
    keys = [k for k in v.arrays if k.startswith("act/")]
    assert keys or len(v.labels) > 1  # the batch-8 file holds gradients only
    for key in keys:
        ours = result.values[activation(result.values, key[4:])]
        assert np.array_equal(ours, nhwc(v.arrays[key]).reshape(ours.shape)), key


def test_logits_and_loss(run):
    v, _, result = run
    assert np.abs(result.outputs[1] - v.arrays["logits"]).max() <= 5e-7
    assert abs(float(result.outputs[0][0]) - float(v.arrays["loss"])) <= 1e-6


def test_gradients_of_activations(run):
    v, _, result = run
    for key in (k for k in v.arrays if k.startswith("gact/")):
        name = activation(result.values, key[5:])
        ours = last_gradient(result.values, name)
        assert relative(ours, nhwc(v.arrays[key]).reshape(ours.shape)) <= 1e-4, key


def test_gradients_of_weights_and_biases(run):
    v, module, result = run
    keys = [k for k in v.arrays if k.startswith(("grad_w/", "grad_b/"))]
    assert len(keys) == 2 * (len([p for p in module.parameters if p.integer]) // 2)
    for key in keys:
        kind, layer = key.split("/")
        name = f"d_{layer}/weight" if kind == "grad_w" else f"d_{layer}/bias"
        ours = result.values[name if name in result.values else f"{name}.trained"]
        assert relative(ours, nhwc(v.arrays[key])) <= 1e-4, key
    assert relative(result.values["d_classifier/weight"], v.arrays["grad_head_w"]) <= 1e-4
    assert relative(result.values["d_classifier/bias.trained"], v.arrays["grad_head_b"]) <= 1e-4


def test_quantization_aware_scaling(run):
    v, module, result = run
    parameters = {p.name: p for p in module.parameters}
    for key in (k for k in v.arrays if k.startswith(("qas_w/", "qas_b/"))):
        kind, layer = key.split("/")
        p = parameters[f"{layer}/weight" if kind == "qas_w" else f"{layer}/bias"]
        gradient = next(
            result.values[n] for n in (f"d_{p.name}", f"d_{p.name}.trained") if n in result.values
        )
        scale = p.row_scale.reshape(-1, *(1,) * (gradient.ndim - 1))
        expected = np.where(scale == 0, 0, nhwc(v.arrays[key]))  # dead channels: ours is never updated
        assert relative(gradient * scale, expected) <= 1e-4, key
