"""Where layers lie: blocks and their parts, and the places where a network can be cut in two."""

from __future__ import annotations

from collections import Counter

from trainlet.choose.contribution import LayerInfo
from trainlet.ir import Graph, GraphBuilder, Value
from trainlet.scheme.layers import Layer, layers


def layer_infos(graph: Graph) -> tuple[LayerInfo, ...]:
    """Every layer with its block and part, in execution order.

    An inverted residual block is a 1x1 convolution, a depthwise one and a 1x1 one, each reading the one
    before (MobileNetV2, arXiv:1801.04381); a depthwise and a 1x1 one alone are a block without its first
    part.
    """
    found = layers(graph)
    feeds = {b.index: a.index for a in found for b in found if a.index < b.index and _feeds(graph, a, b)}
    parts = {layer.index: ("block", _kind(layer)) for layer in found}
    blocks = 0
    for dw in (layer for layer in found if layer.depthwise):
        after = [x for x in found if feeds.get(x.index) == dw.index and _pointwise(x)]
        before = [x for x in found if feeds.get(dw.index) == x.index and _pointwise(x)]
        if not after:
            continue
        for layer, part in [(x, "pw1") for x in before] + [(dw, "dw"), (after[0], "pw2")]:
            if parts[layer.index][1] in ("conv", "gemm"):
                parts[layer.index] = (f"block {blocks}", part)
        blocks += 1
    numbers = iter(range(len(found)))
    return tuple(
        LayerInfo(
            layer.index,
            None if layer.is_head else next(numbers),
            layer.weight.name,
            layer.bias.name if layer.bias is not None else None,
            parts[layer.index][0] if parts[layer.index][0] != "block" else layer.node.output.name,
            parts[layer.index][1],
            layer.channels,
            layer.weight.bytes,
            not layer.depthwise and int(layer.node.attrs.get("groups", 1)) > 1,  # type: ignore[arg-type]
        )
        for layer in found
    )


def _kind(layer: Layer) -> str:
    return "gemm" if layer.node.op == "Gemm" else "conv"


def _pointwise(layer: Layer) -> bool:
    return len(layer.weight.shape) > 2 and all(k == 1 for k in layer.weight.shape[1:-1])


# What may stand between two layers of one block: none of these joins two paths.
_BETWEEN = ("Requantize", "Clip", "HardSwish", "Sigmoid", "HardSigmoid", "QLinearLookup", "QuantizeLinear",
            "DequantizeLinear")  # fmt: skip


def _feeds(graph: Graph, a: Layer, b: Layer) -> bool:
    """Whether b reads a's result through nothing but activations."""
    producers, value = graph.producers(), b.node.inputs[0]
    while value is not None and (node := producers.get(value.name)) is not None:
        if node is a.node:
            return True
        if node.op not in _BETWEEN:
            return False
        value = node.inputs[0]
    return False


def cuts(graph: Graph) -> list[Value]:
    """Values at which everything behind depends on this one alone, in order; the network's input is the
    first.

    The graph can be cut there: what a sample gives at a cut is all that the layers behind it need of it.
    """
    made = {graph.inputs[0].name, *(v.name for n in graph.nodes for v in n.outputs)}
    waiting = Counter(v.name for n in graph.nodes for v in n.operands() if v.name in made)
    waiting[graph.outputs[0].name] += 1
    alive: dict[str, Value] = {graph.inputs[0].name: graph.inputs[0]}
    found = [graph.inputs[0]]
    for node in graph.nodes[:-1]:
        alive |= {v.name: v for v in node.outputs if waiting[v.name]}
        for v in node.operands():
            waiting[v.name] -= 1
            if v.name in alive and not waiting[v.name]:
                del alive[v.name]
        only = next(iter(alive.values()))
        if len(alive) == 1 and only.dtype in ("s8", "f32") and only.shape[:1] == graph.inputs[0].shape[:1]:
            found.append(only)
    return found


def tail(graph: Graph, cut: Value) -> Graph:
    """The part of a network behind a cut, as a network of its own: same names, same integers."""
    if cut.name == graph.inputs[0].name:
        return graph
    at = next(i for i, n in enumerate(graph.nodes) if cut.name in [v.name for v in n.outputs])
    b = GraphBuilder(graph.name)
    b.inputs, b.constants = [cut], dict(graph.constants)
    b.nodes = list(graph.nodes[at + 1 :])
    return b.build(list(graph.outputs))


def last_cut_before(graph: Graph, places: list[Value], trained: set[str]) -> int:
    """Index of the last of `places` (of `cuts`) before anything that reads one of the constants `trained`."""
    order = {v.name: i for i, n in enumerate(graph.nodes) for v in n.outputs}
    first = min(
        (i for i, n in enumerate(graph.nodes) if any(v.name in trained for v in n.operands())),
        default=len(graph.nodes),
    )
    return max(i for i, v in enumerate(places) if order.get(v.name, -1) < first)
