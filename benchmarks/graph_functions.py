"""Our inference graphs as functions of other array libraries, for networks of a few common layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainlet.ir import Graph, Node

Layer = Callable[..., Any]


def forward(graph: Graph, layers: Mapping[str, Layer], x: Any, weights: Mapping[str, Any]) -> Any:
    """Outputs of `graph` for samples x (N, H, W, C). layers: op -> function of (node, operands)."""
    env: dict[str, Any] = {graph.inputs[0].name: x, **weights}
    for node in graph.nodes:
        operands = [None if v is None else env[v.name] for v in node.inputs]
        env[node.output.name] = layers[node.op](node, *operands)
    return env[graph.outputs[0].name]


def _pairs(node: Node) -> list[tuple[int, int]]:
    pads = node.attrs["pads"]
    return [(pads[i], pads[i + 2]) for i in range(2)]


def jax_layers() -> dict[str, Layer]:
    import jax.numpy as jnp
    from jax import lax

    def conv(n: Node, x: Any, w: Any, b: Any = None) -> Any:
        y = lax.conv_general_dilated(
            x, w, n.attrs["strides"], _pairs(n), rhs_dilation=n.attrs["dilations"],
            dimension_numbers=("NHWC", "OHWI", "NHWC"), feature_group_count=n.attrs["groups"],
        )  # fmt: skip
        return y if b is None else y + b

    def max_pool(n: Node, x: Any) -> Any:
        size, steps = (1, *n.attrs["kernel"], 1), (1, *n.attrs["strides"], 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, size, steps, [(0, 0), *_pairs(n), (0, 0)])

    return {
        "Conv": conv,
        "MaxPool": max_pool,
        "Clip": lambda n, x: jnp.clip(x, n.attrs["lo"], n.attrs["hi"]),
        "Add": lambda n, a, b: a + b,
        "AveragePool": lambda n, x: x.mean((1, 2), keepdims=True),
        "Reshape": lambda n, x: x.reshape(x.shape[0], *n.attrs["shape"][1:]),
        "Gemm": lambda n, x, w, b=None: x @ w.T + (0 if b is None else b),
    }


def tensorflow_layers() -> dict[str, Layer]:
    import tensorflow as tf

    def conv(n: Node, x: Any, w: Any, b: Any = None) -> Any:
        pads, s = [[0, 0], *map(list, _pairs(n)), [0, 0]], [1, *n.attrs["strides"], 1]
        if n.attrs["groups"] == 1:
            y = tf.nn.conv2d(x, tf.transpose(w, (1, 2, 3, 0)), s, pads)
        else:  # depthwise: (C, kh, kw, 1) -> (kh, kw, C, 1)
            y = tf.nn.depthwise_conv2d(x, tf.transpose(w, (1, 2, 0, 3)), s, pads)
        return y if b is None else y + b

    def max_pool(n: Node, x: Any) -> Any:
        padded = tf.pad(x, [[0, 0], *_pairs(n), [0, 0]], constant_values=-float("inf"))
        return tf.nn.max_pool2d(padded, n.attrs["kernel"], n.attrs["strides"], "VALID")

    def clip(n: Node, x: Any) -> Any:
        return tf.nn.relu6(x) if n.attrs["hi"] == 6 else tf.nn.relu(x)

    return {
        "Conv": conv,
        "MaxPool": max_pool,
        "Clip": clip,
        "Add": lambda n, a, b: a + b,
        "AveragePool": lambda n, x: tf.reduce_mean(x, (1, 2), keepdims=True),
        "Reshape": lambda n, x: tf.reshape(x, (-1, *n.attrs["shape"][1:])),
        "Gemm": lambda n, x, w, b=0.0: tf.matmul(x, w, transpose_b=True) + b,
    }
