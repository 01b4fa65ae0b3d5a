"""Constant folding: what depends on constants alone is computed now; overlays move into their readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainlet.ir import Graph, Node, Tensor, Value
from trainlet.ir.ops import OPS, Call

# Readers of a weight, by operand: where the weight sits, and where its overlay and channels go.
WEIGHT_READERS = {"Conv": (1, 3), "Gemm": (1, 3), "ConvInteger": (1, 2), "ConvInputGrad": (1, 3)}


def fold_constants(graph: Graph) -> Graph:
    """Nodes whose operands are all constants become constants."""
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        operands = list(node.operands())
        if not operands or not all(v.name in constants for v in operands):
            nodes.append(node)
            continue
        args = tuple(None if v is None else constants[v.name].data for v in node.inputs)
        results = OPS[node.op].run(Call(node, args, np.float32, graph.scales))
        results = results if isinstance(results, tuple) else (results,)
        for value, data in zip(node.outputs, results, strict=False):
            constants[value.name] = Tensor(value, np.asarray(data))
    return replace(graph, constants=constants).with_nodes(nodes)


def fold_overlays(graph: Graph) -> Graph:
    """Weights made of a frozen tensor and trained channels are read where they lie, never assembled.

    OverlayChannels and RoundMaster disappear into the operands of the convolutions that read them.
    """
    producers = graph.producers()
    kept = {v.name for v in (*graph.outputs, *graph.updates.values())}
    nodes = _drop_unread([_fold_reader(node, producers) for node in graph.nodes], kept)
    return graph.with_nodes(
        _drop_unread(nodes, kept)
    )  # again: an overlay was the last reader of its rounding


def _drop_unread(nodes: list[Node], kept: set[str]) -> list[Node]:
    read = kept | {v.name for n in nodes for v in n.operands()}
    return [n for n in nodes if n.op not in ("OverlayChannels", "RoundMaster") or n.output.name in read]


def _fold_reader(node: Node, producers: dict[str, Node]) -> Node:
    if node.op not in WEIGHT_READERS:
        return node
    at, patch = WEIGHT_READERS[node.op]
    integer = node.op == "ConvInteger" or bool(node.attrs.get("integer"))
    inputs: list[Value | None] = [*node.inputs, *(None,) * (patch + 2 - len(node.inputs))]
    made = producers.get(inputs[at].name) if inputs[at] is not None else None  # type: ignore[union-attr]
    if made is not None and made.op == "OverlayChannels":
        inputs[at], trained, inputs[patch + 1] = made.inputs
        inputs[patch] = _unrounded(trained, producers, integer)
    else:
        inputs[at] = _unrounded(inputs[at], producers, integer)
    while inputs and inputs[-1] is None:
        inputs.pop()
    return replace(node, inputs=tuple(inputs))


def _unrounded(value: Value | None, producers: dict[str, Node], integer: bool) -> Value | None:
    """The float master behind a rounded weight; an integer convolution rounds it as it reads."""
    made = producers.get(value.name) if value is not None else None
    return made.inputs[0] if integer and made is not None and made.op == "RoundMaster" else value
