"""Fusion: chains that one kernel computes without the tensors between its parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from trainlet.ir import Graph, Node, Value

Rule = Callable[[Node, Node], Node | None]


def fuse(graph: Graph) -> Graph:
    """Convolution + requantization or clip (+ mask); gradient + update; input gradient + sum."""
    for pattern in (_fuse_requantize, _fuse_clip, _fuse_update, _fuse_addend):
        graph = pattern(graph)
    return graph


def _fuse_pairs(
    graph: Graph, second: Callable[[Node], bool], join: Callable[[Node, Node], Node | None]
) -> Graph:
    """Replace (producer of operand 0, node) by join(producer, node) where node is its only reader.

    The fused node stands where the second one stood.
    """
    readers, producers = graph.consumers(), graph.producers()
    kept_results = {v.name for v in (*graph.outputs, *graph.updates.values())}
    gone: set[str] = set()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        x = node.input(0)
        if not second(node) or x is None or x.name not in producers:
            continue
        made = producers[x.name]
        if made.output != x or len(readers[x.name]) != 1 or x.name in kept_results or x.name in gone:
            continue
        if (joined := join(made, node)) is not None:
            gone.add(made.output.name)
            changed[node.output.name] = joined
    nodes = [changed.get(n.output.name, n) for n in graph.nodes if n.output.name not in gone]
    return graph.with_nodes(nodes)


def _fuse_requantize(graph: Graph) -> Graph:
    """ConvInteger -> Requantize becomes QLinearConv: bias, scale, clamp and mask in the epilogue."""

    def join(conv: Node, req: Node) -> Node | None:
        if conv.op != "ConvInteger":
            return None
        x, w = conv.inputs[:2]
        inputs = (x, w, req.inputs[1], req.inputs[2], *conv.inputs[2:])
        attrs = MappingProxyType({**conv.attrs, **req.attrs})
        return Node("QLinearConv", inputs, req.outputs, attrs, req.source)

    return _fuse_pairs(graph, lambda n: n.op == "Requantize", join)


def _fuse_clip(graph: Graph) -> Graph:
    """Conv or Gemm -> Clip: the clip and its mask move into the epilogue."""

    def join(conv: Node, clip: Node) -> Node | None:
        if conv.op not in ("Conv", "Gemm") or len(conv.outputs) > 1:
            return None
        if math.isfinite(conv.attrs["lo"]) or math.isfinite(conv.attrs["hi"]):  # type: ignore[arg-type]
            return None
        attrs = MappingProxyType({**conv.attrs, "lo": clip.attrs["lo"], "hi": clip.attrs["hi"]})
        return Node(conv.op, conv.inputs, clip.outputs, attrs, conv.source)

    return _fuse_pairs(graph, lambda n: n.op == "Clip", join)


def _fuse_update(graph: Graph) -> Graph:
    """ConvWeightGrad or BiasGrad -> Update: a row at a time, so no gradient tensor exists."""

    def join(grad: Node, update: Node) -> Node | None:
        if grad.op == "ConvWeightGrad":
            operands: tuple[Value | None, ...] = (*grad.inputs, *(None,) * (3 - len(grad.inputs)))
        elif grad.op == "BiasGrad":
            operands = grad.inputs
        else:
            return None
        attrs = MappingProxyType({**grad.attrs, **update.attrs})
        return Node(f"{grad.op}Update", (*operands, *update.inputs[1:]), update.outputs, attrs, grad.source)

    return _fuse_pairs(graph, lambda n: n.op == "Update", join)


def _fuse_addend(graph: Graph) -> Graph:
    """Add(ConvInputGrad, other) with `other` known before: the gradient is accumulated onto it."""
    order = {v.name: i for i, n in enumerate(graph.nodes) for v in n.outputs}
    readers, producers = graph.consumers(), graph.producers()
    kept_results = {v.name for v in (*graph.outputs, *graph.updates.values())}
    gone: set[str] = set()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "Add" or node.inputs[0].shape != node.inputs[1].shape:  # type: ignore[union-attr]
            continue
        pairs = [(a, b) for a, b in (node.inputs, node.inputs[::-1]) if a is not None and b is not None]
        for conv_out, other in sorted(pairs, key=lambda p: -order.get(p[0].name, -1)):
            conv = producers.get(conv_out.name)
            if conv is None or conv.op != "ConvInputGrad" or conv.input(2) is not None:
                continue
            sole = len(readers[conv_out.name]) == 1 and len(readers[other.name]) == 1
            if not sole or other.name not in order or conv_out.name in gone | kept_results:
                continue
            inputs = (*conv.inputs[:2], other, *conv.inputs[3:])
            changed[node.output.name] = replace(conv, inputs=inputs, outputs=node.outputs)
            gone.add(conv_out.name)
            break
    nodes = [changed.get(n.output.name, n) for n in graph.nodes if n.output.name not in gone]
    return graph.with_nodes(nodes)
