"""Dead-node elimination: what turns a scheme into savings."""

from __future__ import annotations

from dataclasses import replace

from trainlet.ir import Graph, Node


def eliminate_dead(graph: Graph) -> Graph:
    """Drops nodes that neither the outputs nor an update depend on, and masks that nothing reads."""
    needed = {v.name for v in (*graph.outputs, *graph.updates.values())}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        used = [i for i, v in enumerate(node.outputs) if v.name in needed]
        if not used:
            continue
        node = replace(node, outputs=node.outputs[: used[-1] + 1])
        needed |= {v.name for v in node.operands()}
        kept.append(node)
    return graph.with_nodes(reversed(kept))
