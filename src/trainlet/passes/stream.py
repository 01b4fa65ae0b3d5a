"""Streaming: chains of frozen int8 convolutions keep only the rows they need, where that lowers the peak.

Exact, and nothing is computed twice. The idea is that of patch-based inference without its halo
(Lin et al., MCUNetV2, arXiv:2110.15352, recompute the halo): here each row of each layer is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops import OPS
from trainlet.ir.ops.stream import STAGES, encode, stages, window_bytes
from trainlet.passes.inplace import reuse_in_place
from trainlet.plan.liveness import arena_ranges, live_bytes

# Fixed-point arithmetic, narrower clamps and asymmetric weights: a stage of StreamRows has none of these.
NOT_ENCODED = ("w_zero", "lo", "hi", "fixed", "subtract")


def stream_rows(graph: Graph) -> Graph:
    """Merges neighbours around the step of most live bytes into one streamed op while the peak falls."""
    cost = _cost(graph)
    while True:
        candidates = [(_cost(g), g) for g in _merges(graph, cost[2])]
        if not candidates:
            return graph
        best, merged = min(candidates, key=lambda c: c[0][:2])
        if best[:2] >= cost[:2]:
            return graph
        graph, cost = merged, best


def _cost(graph: Graph) -> tuple[int, int, int]:
    """(peak bytes, steps at the peak, first such step)."""
    alive = live_bytes(arena_ranges(reuse_in_place(graph)), len(graph.nodes))
    peak = max(alive)
    return peak, alive.count(peak), alive.index(peak) - 1


def _merges(graph: Graph, at: int) -> Iterator[Graph]:
    """The graph with each run of two to four neighbouring nodes around step `at` merged."""
    if not 0 <= at < len(graph.nodes):
        return
    readers, producers = graph.consumers(), graph.producers()
    results = {v.name for v in (*graph.outputs, *graph.updates.values())}
    run = _run(graph.nodes[at], readers, producers)
    here = next((i for i, n in enumerate(run) if n is graph.nodes[at]), None)
    if here is None:
        return
    for first in range(max(0, here - 3), here + 1):
        for last in range(max(first + 1, here), min(len(run), first + 4)):
            merged = _merge(run[first : last + 1], readers)
            gone = {n.output.name for n in run[first:last]}
            if merged is not None and not gone & results:
                kept = [n for n in graph.nodes if n.output.name not in gone]
                yield graph.with_nodes([merged if n is run[last] else n for n in kept])


def _streamable(node: Node) -> bool:
    """A frozen convolution without a mask, an add without a mask, or what was merged already."""
    if node.op == "StreamRows":
        return True
    if len(node.outputs) > 1 or len(node.output.shape) != 4 or node.output.quant is None:
        return False
    if any(node.attrs[k] != d for k, d in OPS[node.op].attrs.items() if k in NOT_ENCODED):
        return False
    if node.op == "QLinearConv":
        integer = all(v is not None and v.dtype != "f32" for v in node.inputs[1:3])
        scale = node.inputs[3]
        return len(node.inputs) == 4 and integer and scale is not None and scale.dtype == "f32"
    return node.op == "QLinearAdd"


def _run(node: Node, readers: dict[str, list[Node]], producers: dict[str, Node]) -> list[Node]:
    """The line of streamable nodes through `node`: each feeds the next, an add through either operand."""
    if not _streamable(node):
        return []
    run = [node]
    while (before := _before(run[0], producers)) is not None and _streamable(before):
        run.insert(0, before)
    while (after := _after(run[-1], readers)) is not None and _streamable(after):
        run.append(after)
    return run


def _before(node: Node, producers: dict[str, Node]) -> Node | None:
    """The node on the path through the layers: of an add, the operand that was computed last."""
    made = [producers[v.name] for v in node.operands() if v.name in producers and v.dtype == "s8"]
    return max(made, key=lambda n: list(producers.values()).index(n)) if made else None


def _after(node: Node, readers: dict[str, list[Node]]) -> Node | None:
    following = readers.get(node.output.name, [])
    return following[0] if following else None


def _merge(run: list[Node], readers: dict[str, list[Node]]) -> Node | None:
    """One StreamRows for a run, None where a tensor between its nodes is needed elsewhere."""
    x = run[0].inputs[0]
    chain: list[Node] = []
    value: Value | None = x
    for node in run:
        parts = [node]
        if node.op == "StreamRows":
            parts = stages(node.inputs, node.attrs, node.output.name, node.source)
        if node.op == "QLinearAdd":
            if x not in node.inputs or value not in node.inputs or value == x:
                return None
            if node.inputs[0] != value:  # the kernel adds the chain's input second
                node = Node(node.op, (value, x), node.outputs, node.attrs, node.source)
            parts = [node]
        elif parts[0].inputs[0] != value or (chain and _adds_input(parts)):
            return None
        chain += parts
        value = node.output
    inner = [n.output for n in run[:-1]]
    inside = {id(n) for n in run}
    if any(id(r) not in inside for v in inner for r in readers.get(v.name, [])) or len(chain) > STAGES:
        return None
    operands, attrs = encode(chain)
    last = run[-1].output
    rows = Value(f"{last.name}.rows", "s8", (max(1, window_bytes(chain)),))
    return Node("StreamRows", tuple(operands), (last, rows), MappingProxyType(attrs), chain[0].source)


def _adds_input(parts: list[Node]) -> bool:
    """Whether a merged chain adds its own input, which would no longer exist whole."""
    return any(p.op == "QLinearAdd" for p in parts)
