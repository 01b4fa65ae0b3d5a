"""The trainable layers of a network: which constant is a weight, which its bias, in which order."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops.convolution import is_depthwise

WEIGHTED = ("Conv", "ConvInteger", "Gemm")
NORMS = ("LayerNormalization", "BatchNormalization")
# Below this weight scale a channel is dead: its weights are all zero, and a gradient divided by the
# square of the scale explodes. Such channels are never updated.
DEAD_SCALE = 1e-6


@dataclass(frozen=True)
class Layer:
    """A convolution or Gemm with constant weights. `index` counts from 0, head last.

    A normalization is one, too, where its scale and offset are trained: its weight (C) is gamma, its bias
    beta.
    """

    index: int
    node: Node
    weight: Value
    bias: Value | None
    is_head: bool

    @property
    def depthwise(self) -> bool:
        groups = int(self.node.attrs.get("groups", 1))  # type: ignore[arg-type]
        return is_depthwise(self.weight.shape, groups)

    @property
    def channels(self) -> int:
        """Channels a scheme can choose from: inputs of a group, outputs where depthwise."""
        return self.weight.shape[0] if self.depthwise else self.weight.shape[-1]

    @property
    def channel_weights(self) -> int:
        """Weights that belong to one channel."""
        return math.prod(self.weight.shape) // self.channels


def layers(graph: Graph) -> list[Layer]:
    """Every layer with constant weights, in execution order."""
    readers = graph.consumers()
    found: list[tuple[Node, Value, Value | None]] = []
    for node in graph.nodes:
        weight = node.input(1) if node.op in WEIGHTED else None
        if weight is None or weight.name not in graph.constants:
            continue
        bias = node.input(2) if node.op != "ConvInteger" else _integer_bias(readers.get(node.output.name, []))
        found.append((node, weight, bias if bias is None or bias.name in graph.constants else None))
    head = _head(graph)
    return [Layer(i, n, w, b, n is head) for i, (n, w, b) in enumerate(found)]


def norms(graph: Graph) -> list[Layer]:
    """Every normalization with a constant gamma, in execution order; its index is its place among them."""
    found = [n for n in graph.nodes if n.op in NORMS]
    constant = [(n, _constant(graph, n, 1), _constant(graph, n, 2)) for n in found]
    return [Layer(i, n, w, b, False) for i, (n, w, b) in enumerate(constant) if w is not None]


def statistics(graph: Graph, trained: Collection[str]) -> list[Layer]:
    """The BatchNormalizations that run on batch statistics when `trained` constants are trained: those with
    one of them behind or in them. Of such a layer, weight and bias are the running mean and variance."""
    wanted = set(trained)
    found: list[Layer] = []
    for node in graph.nodes:
        if any(v.name in wanted for v in node.operands()):
            wanted |= {v.name for v in node.outputs}
            mean, variance = node.input(3), node.input(4)
            if node.op == "BatchNormalization" and mean is not None:
                found.append(Layer(len(found), node, mean, variance, False))
    return found


def _constant(graph: Graph, node: Node, index: int) -> Value | None:
    value = node.input(index)
    return value if value is not None and value.name in graph.constants else None


def _integer_bias(readers: list[Node]) -> Value | None:
    return next((node.inputs[1] for node in readers if node.op == "Requantize"), None)


def _head(graph: Graph) -> Node | None:
    """The layer that computes the output: reached backwards through nodes without weights."""
    producers, value = graph.producers(), graph.outputs[0]
    while (node := producers.get(value.name)) is not None:
        if node.op in WEIGHTED:
            return node
        operands = [v for v in node.operands() if v.name in producers]
        if len(operands) != 1:
            return None
        value = operands[0]
    return None


def alive(graph: Graph, layer: Layer) -> np.ndarray:
    """(O,) bool: output channels that can be updated; all of them in a float layer.

    A channel is dead when its scale is tiny or its integers are all zero: its scale is then arbitrary.
    """
    quant = layer.weight.quant
    if quant is None:
        return np.ones(layer.weight.shape[0], bool)
    rows = centered(graph, layer).reshape(layer.weight.shape[0], -1)
    return (graph.scales(layer.weight) > DEAD_SCALE) & rows.any(1)


def centered(graph: Graph, layer: Layer) -> np.ndarray:
    """A layer's weights with their zero point subtracted, if they have one."""
    quant, data = layer.weight.quant, graph.constants[layer.weight.name].data
    return data if quant is None or quant.zero_point == 0 else data.astype(np.int32) - quant.zero_point


def largest_norm(weight: np.ndarray, count: int, depthwise: bool) -> tuple[int, ...]:
    """The `count` channels of largest Euclidean norm (of the integers, where quantized), ascending.

    The rule of Lin et al., arXiv:2206.15472; ties go to the lower index.
    """
    w = weight.astype(np.float64)
    norms = (w * w).reshape(len(w), -1).sum(1) if depthwise else (w * w).reshape(-1, w.shape[-1]).sum(0)
    return tuple(sorted(int(i) for i in np.argsort(-norms, kind="stable")[:count]))
