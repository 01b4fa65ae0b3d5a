"""In-place: a result takes over the memory of an operand that nothing reads any more."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from trainlet.ir import Graph, Node
from trainlet.ir.ops import OPS


def reuse_in_place(graph: Graph) -> Graph:
    """Marks (attribute `inplace`: operand index) each first result that overwrites a dead operand.

    Constants, states, graph outputs and inputs of the caller's are never overwritten. Depends on the order:
    run it last.
    """
    fixed = {*graph.constants, *graph.state, *graph.placed}
    last: dict[str, int] = {v.name: len(graph.nodes) for v in (*graph.outputs, *graph.updates.values())}
    root: dict[str, str] = {v.name: v.name for v in graph.values()}
    updated = {v.name for v in graph.updates.values()}
    for node in graph.nodes:
        if OPS[node.op].view and (x := node.input(0)) is not None:
            root[node.output.name] = root[x.name]
    members: dict[str, list[str]] = {}
    for name, r in root.items():
        members.setdefault(r, []).append(name)
    for i, node in enumerate(graph.nodes):
        for v in (*node.operands(), *node.outputs):
            name = root[v.name]
            last[name] = max(last.get(name, 0), last.get(v.name, 0), i)
    nodes = []
    for i, node in enumerate(graph.nodes):
        chosen = None if node.output.name in updated else _operand(node, i, root, last, fixed)
        if chosen is not None:
            old, new = root[node.inputs[chosen].name], node.output.name  # type: ignore[union-attr]
            end = last[new]
            moved = members.pop(new)
            members[old] += moved
            root.update(dict.fromkeys(moved, old))
            last[old] = end
            node = replace(node, attrs=MappingProxyType({**node.attrs, "inplace": chosen}))
        nodes.append(node)
    return graph.with_nodes(nodes)


def _operand(node: Node, i: int, root: dict[str, str], last: dict[str, int], fixed: set[str]) -> int | None:
    for index in OPS[node.op].inplace.get(0, ()):
        x = node.input(index)
        if x is None or x.bytes != node.output.bytes or root[x.name] in fixed:
            continue
        if not OPS[node.op].inplace_fits(node, index):
            continue
        others = [v for j, v in enumerate(node.inputs) if v is not None and j != index]
        if last[root[x.name]] == i and all(root[v.name] != root[x.name] for v in others):
            return index
    return None
