"""What the quantizer decides before it rewrites: clamps to fold, the float head, ranges to share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainlet.ir.graph import Graph, Node, Value
from trainlet.quantize.calibrate import Range

FOLDS_CLAMP = ("Conv", "Gemm", "Add", "Mul")  # their int8 form ends in a saturation
REQUANTIZES = (*FOLDS_CLAMP, "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Clip")


@dataclass(frozen=True)
class Structure:
    """`clamps`: result of a layer -> the Clip folded into it; `folded`: results of those Clips.

    `head`: results of the nodes that stay float. `shared`: value -> the wider range of the Concat
    that alone reads it, so that no rescaling is needed there.
    """

    clamps: Mapping[str, Node] = field(default_factory=dict)
    folded: frozenset[str] = frozenset()
    head: frozenset[str] = frozenset()
    shared: Mapping[str, Range] = field(default_factory=dict)

    def range_of(self, name: str, observed: Range) -> Range:
        return self.shared.get(name, observed)

    def saturates(self, node: Node) -> bool:
        """Whether the node's own clamp and the one folded into it are a saturation: both include zero."""
        clamp = self.clamps.get(node.output.name)
        return _includes_zero(node) and (clamp is None or _includes_zero(clamp))


def find_structure(graph: Graph, ranges: Mapping[str, Range], float_head: bool) -> Structure:
    """Decisions for a float graph with the calibrated range of each of its values."""
    head = _head(graph) if float_head else frozenset()
    clamps = _clamps(graph, head)
    folded = frozenset(clip.output.name for clip in clamps.values())
    return Structure(clamps, folded, head, _shared_ranges(graph, ranges, clamps, head))


def constant(graph: Graph, value: Value) -> np.ndarray | None:
    """Contents of a value that is known before the program runs."""
    tensor = graph.constants.get(value.name)
    return None if tensor is None else tensor.data


def data_operands(graph: Graph, node: Node) -> list[Value]:
    """A node's operands, activations before constants."""
    return sorted(node.operands(), key=lambda v: v.name in graph.constants)


def _bounds(node: Node) -> tuple[float, float]:
    lo, hi = node.attrs.get("lo", -np.inf), node.attrs.get("hi", np.inf)
    return float(lo), float(hi)  # type: ignore[arg-type]


def _includes_zero(node: Node) -> bool:
    lo, hi = _bounds(node)
    return lo <= 0 <= hi


def _clamps(graph: Graph, head: frozenset[str]) -> dict[str, Node]:
    """Clips that are the only reader of a layer that saturates anyway."""
    readers = graph.consumers()
    outputs = {v.name for v in graph.outputs}
    found = {}
    for node in graph.nodes:
        name = node.output.name
        only = readers.get(name, [])
        if node.op not in FOLDS_CLAMP or name in head or name in outputs or len(only) != 1:
            continue
        if only[0].op == "Clip" and only[0].output.name not in head and _includes_zero(only[0]):
            found[name] = only[0]
    return found


def _head(graph: Graph) -> frozenset[str]:
    """Results of the nodes from the last Gemm, Conv or MatMul to the output; none where paths join."""
    producers, names = graph.producers(), []
    node = producers.get(graph.outputs[0].name)
    while node is not None:
        names.append(node.output.name)
        if node.op in ("Conv", "Gemm", "MatMul"):
            return frozenset(names)
        operands = [v for v in node.operands() if constant(graph, v) is None]
        node = producers.get(operands[0].name) if len(operands) == 1 else None
    return frozenset()


def _shared_ranges(
    graph: Graph, ranges: Mapping[str, Range], clamps: Mapping[str, Node], head: frozenset[str]
) -> dict[str, Range]:
    """Range of a Concat for each operand that only it reads, unless a clamp folded there would widen."""
    readers, producers = graph.consumers(), graph.producers()
    outputs = {v.name for v in graph.outputs}
    clipped = {clip.output.name: producers[name] for name, clip in clamps.items()}
    shared: dict[str, Range] = {}
    for node in reversed(graph.nodes):
        if node.op != "Concat" or node.output.name in head:
            continue
        whole = shared.get(node.output.name, ranges[node.output.name])
        for value in node.operands():
            layer = clipped.get(value.name) or producers.get(value.name)
            if layer is None or len(readers[value.name]) != 1 or value.name in (*outputs, *head):
                continue
            if layer.op == "Concat" or (layer.op in REQUANTIZES and _allows(layer, clamps, whole)):
                shared[value.name] = whole
    return shared


def _allows(layer: Node, clamps: Mapping[str, Node], whole: Range) -> bool:
    """Whether saturating to `whole` still clamps what the layer's Clips clamp."""
    nodes = [layer, *([clamps[layer.output.name]] if layer.output.name in clamps else [])]
    if layer.op == "Clip":
        return True  # a table: it clamps by itself
    return all(_bounds(n)[0] <= whole.lo and whole.hi <= _bounds(n)[1] for n in nodes)
