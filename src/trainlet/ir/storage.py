"""Which values share memory: views, in-place results, updated states."""

from __future__ import annotations

from trainlet.ir.graph import Graph
from trainlet.ir.ops import OPS


def storage_roots(graph: Graph) -> dict[str, str]:
    """Value name -> the value whose memory it lives in: views, in-place results, updated states."""
    root: dict[str, str] = {v.name: v.name for v in graph.values()}
    updated = {v.name: state for state, v in graph.updates.items()}
    for node in graph.nodes:
        first = node.input(0)
        if OPS[node.op].view and first is not None:
            root[node.output.name] = root[first.name]
        elif "inplace" in node.attrs:
            operand = node.inputs[int(node.attrs["inplace"])]  # type: ignore[arg-type]
            assert operand is not None
            root[node.output.name] = root[operand.name]
        for out in node.outputs:
            root[out.name] = updated.get(out.name, root[out.name])
    return root
