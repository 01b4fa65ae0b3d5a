"""A new head for a new number of classes."""

from __future__ import annotations

import math

import numpy as np

from trainlet.errors import SchemeError
from trainlet.ir import Graph, GraphBuilder, Value
from trainlet.scheme.layers import Layer, layers

# What may stand between the head and the output, and says nothing about which class is largest.
_AFTER_LOGITS = ("Softmax", "QuantizeLinear", "DequantizeLinear", "Requantize", "Reshape", "Scale")


def replace_head(graph: Graph, classes: int, seed: int = 0) -> Graph:
    """The same network with its last layer re-initialised, as a float Gemm for `classes` outputs.

    An int8 head becomes a float one on dequantized features, and a softmax behind it is dropped: the
    loss contains it. Weights are uniform in +-1/sqrt(features), bias 0, from `seed`.
    Raises SchemeError where the network ends in anything else than one layer on a vector of features.
    """
    if classes < 2:
        raise SchemeError(f"{classes} classes: a classifier needs at least 2")
    head = _head(graph)
    features = _features(graph, head)
    bound = 1 / np.sqrt(features)
    rng = np.random.default_rng(seed)
    weight = rng.uniform(-bound, bound, (classes, features)).astype(np.float32)
    return with_head(graph, weight, np.zeros(classes, np.float32))


def _head(graph: Graph) -> Layer:
    head = next((x for x in layers(graph) if x.is_head), None)
    found = [n.output.name for n in graph.nodes]
    after = graph.nodes[found.index(head.node.output.name) + 1 :] if head is not None else ()
    if head is None or any(n.op not in _AFTER_LOGITS for n in after):
        raise SchemeError(f"{graph.name} does not end in a layer of its own: its head cannot be replaced")
    return head


def _features(graph: Graph, head: Layer) -> int:
    """Inputs of the head's layer. Raises SchemeError where it slides over several positions."""
    x = head.node.inputs[0]
    assert x is not None
    features = head.weight.shape[-1]
    if head.weight.size != head.weight.shape[0] * features or math.prod(x.shape[:-1]) != x.shape[0]:
        raise SchemeError(f"the last layer of {graph.name} is no classifier of one vector: keep its classes")
    return features


def with_head(graph: Graph, weight: np.ndarray, bias: np.ndarray) -> Graph:
    """The same network with its last layer replaced by a Gemm of weight (K, F) and bias (K)."""
    head = _head(graph)
    _features(graph, head)
    found = [n.output.name for n in graph.nodes]
    base = graph.with_nodes(graph.nodes[: found.index(head.node.output.name)])
    drop = {v.name for v in (head.weight, head.bias) if v is not None}
    kept = {v.name for n in base.nodes for v in n.outputs} | {v.name for v in graph.inputs}
    x = head.node.inputs[0]
    assert x is not None
    b = GraphBuilder(graph.name, base)
    b.constants = {k: t for k, t in graph.constants.items() if k not in drop}
    b._names = kept | set(b.constants)
    w = b.constant(head.weight.name, weight, "f32")
    bias_name = head.bias.name if head.bias is not None else head.weight.name + ".bias"
    v = b.constant(bias_name, bias, "f32")
    attrs = head.node.attrs if head.node.op == "Gemm" else {}
    name = graph.outputs[0].name if head.node.op != "Gemm" else head.node.output.name
    y = b.add("Gemm", [_real_features(b, x, head), w, v], attrs, name=name, source=head.node.source)
    return b.build([y])


def _real_features(b: GraphBuilder, x: Value, head: Layer) -> Value:
    """The head's operand as float (N, F)."""
    source = head.node.source
    if x.dtype != "f32":
        x = b.add("DequantizeLinear", [x], name=f"{x.name}/f32", source=source)
    if head.node.op == "Gemm" or len(x.shape) == 2:
        return x
    return b.add("Reshape", [x], {"shape": (x.shape[0], x.shape[-1])}, name=f"{x.name}/flat", source=source)


def without_softmax(graph: Graph) -> Graph:
    """The same network up to its logits, where a softmax ends it (quantized or not)."""
    producers, value = graph.producers(), graph.outputs[0]
    while (node := producers.get(value.name)) is not None and node.op in (
        "Softmax",
        "QuantizeLinear",
        "DequantizeLinear",
        "Reshape",
    ):
        x = node.inputs[0]
        assert x is not None
        if node.op == "Softmax":
            return _until(graph, x) if x.shape == graph.outputs[0].shape else graph
        value = x
    return graph


def _until(graph: Graph, logits: Value) -> Graph:
    index = [n.output.name for n in graph.nodes].index(logits.name)
    b = GraphBuilder(graph.name, graph)
    b.nodes = list(graph.nodes[: index + 1])
    return b.build([logits])
