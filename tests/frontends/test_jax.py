"""JAX functions: outputs, gradients against jax.grad, and parameters back into the pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.frontends.torch_models import close, moved, sample
from tests.train.networks import case, gradients
from trainlet.errors import ModelError
from trainlet.frontends.jax import from_function, to_params
from trainlet.ir import interpret

Params = dict[str, Any]


def drawn(shapes: dict[str, dict[str, tuple[int, ...]]]) -> Params:
    rng = np.random.default_rng(0)
    return {k: {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in v.items()} for k, v in shapes.items()}


def convolutional(p: Params, x: Any) -> Any:
    """Convolution, pool, depthwise convolution, gate, head; channels last, as JAX's libraries have it."""

    def conv(x: Any, w: Any, stride: int = 1, groups: int = 1) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride,) * 2, "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    x = jax.nn.relu(conv(x, p["stem"]["w"], 2) + p["stem"]["b"])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    y = jnp.tanh(conv(x, p["depthwise"]["w"], groups=8) + p["depthwise"]["b"])
    x = x + y * jax.nn.sigmoid(y.mean((1, 2), keepdims=True))
    return x.mean((1, 2)) @ p["head"]["w"] + p["head"]["b"]


CONVOLUTIONAL = {
    "stem": {"b": (8,), "w": (3, 3, 3, 8)},
    "depthwise": {"b": (8,), "w": (3, 3, 1, 8)},
    "head": {"b": (5,), "w": (8, 5)},
}


def perceptron(p: Params, x: Any) -> Any:
    x = jax.nn.gelu(x @ p["one"]["w"] + p["one"]["b"], approximate=False)
    return x @ p["two"]["w"] + p["two"]["b"]


PERCEPTRON = {"one": {"b": (9,), "w": (6, 9)}, "two": {"b": (4,), "w": (9, 4)}}


@pytest.mark.parametrize(
    ("function", "shapes", "shape"),
    [(convolutional, CONVOLUTIONAL, (1, 12, 12, 3)), (perceptron, PERCEPTRON, (1, 6))],
)
def test_a_function_of_a_pytree(function: Any, shapes: Any, shape: tuple[int, ...]) -> None:
    params, x = drawn(shapes), sample(shape)
    graph, origin = from_function(function, params, x)
    assert {f"{k}.{n}" for k, v in shapes.items() for n in v} <= set(graph.constants)
    assert "Transpose" not in {n.op for n in graph.nodes}
    close(interpret(graph, {"x": x}).outputs[0], np.asarray(function(params, x)))

    given = case(graph, 3, loss="softmax-cross-entropy")
    feed = given.feeds["x"].astype(np.float32)
    label = int(given.feeds["label"][0])
    theirs = jax.grad(lambda p: -jax.nn.log_softmax(function(p, feed))[0, label])(params)
    ours = gradients(given)
    for layer in origin.stored:
        module, leaf = layer.weight.split(".")
        d = np.asarray(theirs[module][leaf]).transpose(origin.turned[layer.weight]).transpose(layer.perm)
        close(ours[layer.weight], d, layer.weight)
        close(ours[layer.bias], np.asarray(theirs[module]["b"]), layer.bias)

    trained = moved(graph)
    back = to_params(trained, origin)
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(params)
    close(np.asarray(function(back, x)), interpret(trained, {"x": x}).outputs[0])


def test_primitives_without_a_counterpart_are_listed_at_once() -> None:
    def network(p: Params, x: Any) -> Any:
        return jnp.sort(jnp.cumsum(x @ p["one"]["w"], axis=1), axis=1)

    with pytest.raises(ModelError, match=r"2 layers.*: jax.cumsum is not.*test_jax.py:\d+.*sort"):
        from_function(network, {"one": {"w": np.ones((6, 9), np.float32)}}, np.zeros((1, 6)))
