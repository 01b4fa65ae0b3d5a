"""A new head for a new number of classes."""

from __future__ import annotations

import numpy as np

from trainlet.errors import SchemeError
from trainlet.ir import Graph, GraphBuilder
from trainlet.scheme.layers import layers


def replace_head(graph: Graph, classes: int, seed: int = 0) -> Graph:
    """The same network with its last Gemm re-initialised for `classes` outputs.

    Weights are uniform in +-1/sqrt(features), bias 0, from `seed`.
    Raises SchemeError where the network does not end in a Gemm.
    """
    if classes < 2:
        raise SchemeError(f"{classes} classes: a classifier needs at least 2")
    head = next((x for x in layers(graph) if x.is_head), None)
    if head is None or head.node.op != "Gemm" or graph.nodes[-1] is not head.node:
        raise SchemeError(f"{graph.name} does not end in a Gemm: its head cannot be replaced")
    features = head.weight.shape[1]
    bound = 1 / np.sqrt(features)
    rng = np.random.default_rng(seed)
    weight = rng.uniform(-bound, bound, (classes, features)).astype(np.float32)
    return with_head(graph, weight, np.zeros(classes, np.float32))


def with_head(graph: Graph, weight: np.ndarray, bias: np.ndarray) -> Graph:
    """The same network with the last Gemm's weight (K, F) and bias (K) replaced."""
    head = next(x for x in layers(graph) if x.is_head)
    drop = {v.name for v in (head.weight, head.bias) if v is not None}
    b = GraphBuilder(graph.name, graph.with_nodes(graph.nodes[:-1]))
    b.constants = {k: t for k, t in graph.constants.items() if k not in drop}
    b._names -= drop | {head.node.output.name}
    w = b.constant(head.weight.name, weight, "f32")
    bias_name = head.bias.name if head.bias is not None else head.weight.name + ".bias"
    v = b.constant(bias_name, bias, "f32")
    x = head.node.inputs[0]
    y = b.add("Gemm", [x, w, v], head.node.attrs, name=head.node.output.name, source=head.node.source)
    return b.build([y])
