"""Recomputation: an activation that only waits for its gradient is dropped and computed again before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops import OPS
from trainlet.passes.inplace import reuse_in_place
from trainlet.plan.liveness import arena_ranges, live_bytes

AGAIN = ".again"  # how the second computation of a value is named
MAC_SHARE = 0.25  # most work done twice, as a share of the graph's multiply-accumulates


def recompute(graph: Graph, target_bytes: int = 0) -> Graph:
    """The graph with forward nodes repeated before their late readers, while that lowers the peak.

    Stops at a peak of `target_bytes`, or when the work done twice would exceed MAC_SHARE of the graph's.
    Exact: the same kernel reads the same operands, so results keep their bits. The choice is greedy, by
    bytes freed at the peak for the work it costs (the trade of Chen et al., arXiv:1604.06174, made value by
    value). Depends on the order of nodes: it comes after `reorder`.
    """
    left = int(MAC_SHARE * sum(OPS[n.op].macs(n) for n in graph.nodes))
    cost, refused = _cost(graph), set[str]()
    while cost[0] > target_bytes:
        found = min(_candidates(graph, cost[2], refused, left), default=None)
        if found is None:
            return graph
        name, first_reader = found[1], found[2]
        changed = _again(graph, name, first_reader)
        better = _cost(changed)
        if better[:2] >= cost[:2]:
            refused.add(name)
            continue
        left -= OPS[(node := graph.producers()[name]).op].macs(node)
        graph, cost = changed, better
        refused.clear()
    return graph


def recomputed(graph: Graph) -> list[Node]:
    """The nodes that are a second computation."""
    return [n for n in graph.nodes if n.output.name.endswith(AGAIN)]


def _cost(graph: Graph) -> tuple[int, int, int]:
    """(peak bytes, steps at the peak, the last such step)."""
    alive = live_bytes(arena_ranges(reuse_in_place(graph)), len(graph.nodes))
    peak = max(alive)
    return peak, alive.count(peak), len(alive) - 2 - alive[::-1].index(peak)


def _candidates(
    graph: Graph, peak: int, refused: set[str], macs_left: int
) -> Iterator[tuple[float, str, int]]:
    """(work a freed byte, value, its first reader after the peak) of what only waits at step `peak`."""
    readers = _reader_steps(graph)
    written = {v.name: s for s, v in graph.updates.items()}
    updated_at = {
        written[v.name]: i for i, n in enumerate(graph.nodes) for v in n.outputs if v.name in written
    }
    results = {v.name for v in (*graph.outputs, *graph.updates.values())}
    constant = {*graph.constants, *graph.state}
    for i, node in enumerate(graph.nodes[: max(0, peak)]):
        name, steps = node.output.name, readers.get(node.output.name, [])
        later = [s for s in steps if s > peak]
        macs = OPS[node.op].macs(node)
        idle = later and peak not in steps and i < peak and not set(map(_name, node.outputs)) & results
        if not idle or name in refused or name.endswith(AGAIN) or OPS[node.op].view or macs > macs_left:
            continue
        if any(updated_at.get(v.name, len(graph.nodes)) < later[0] for v in node.operands()):
            continue  # the trained tensor it reads has moved on by then
        kept = sum(
            v.bytes
            for v in {v.name: v for v in node.operands() if v.name not in constant}.values()
            if max(readers[v.name]) <= peak
        )
        if (freed := node.output.bytes - kept) > 0:
            yield (macs + node.output.size) / freed, name, later[0]


def _name(value: Value) -> str:
    return value.name


def _reader_steps(graph: Graph) -> dict[str, list[int]]:
    steps: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for v in node.operands():
            steps.setdefault(v.name, []).append(i)
    return steps


def _again(graph: Graph, name: str, first_reader: int) -> Graph:
    """The producer of `name` repeated before step `first_reader`; readers from there on take the copy."""
    node = graph.producers()[name]
    copy = replace(node.output, name=name + AGAIN)
    attrs = {k: v for k, v in node.attrs.items() if k != "inplace"}
    nodes = list(graph.nodes[:first_reader])
    nodes.append(replace(node, outputs=(copy,), attrs=attrs))
    for late in graph.nodes[first_reader:]:
        inputs = tuple(copy if v is not None and v.name == name else v for v in late.inputs)
        nodes.append(replace(late, inputs=inputs))
    return graph.with_nodes(nodes)
