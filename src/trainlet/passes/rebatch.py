"""The same network for another batch size."""

from __future__ import annotations

from trainlet.errors import ModelError
from trainlet.ir import Graph, GraphBuilder, Node, Value
from trainlet.ir.graph import Attr


def rebatch(graph: Graph, batch: int) -> Graph:
    """An inference graph with every activation's leading dimension set to `batch`.

    Raises ModelError naming the layer whose shape mixes samples.
    """
    old = graph.inputs[0].shape[0]
    if batch == old:
        return graph
    b = GraphBuilder(graph.name)
    b.constants = dict(graph.constants)
    env: dict[str, Value] = {k: t.value for k, t in graph.constants.items()}
    b._names |= set(env)
    for v in graph.inputs:
        env[v.name] = b.input(v.name, v.dtype, (batch, *v.shape[1:]), v.quant)
    for node in graph.nodes:
        inputs = [None if v is None else env[v.name] for v in node.inputs]
        new = b.add(node.op, inputs, _attrs(node, old, batch), name=node.output.name, source=node.source,
                    quant=node.output.quant)
        if new.shape != (batch, *node.output.shape[1:]):
            raise ModelError(f"{node.op} at {node.source or node.output.name} mixes samples: batch must stay {old}")
        env[node.output.name] = new
    return b.build([env[v.name] for v in graph.outputs])


def _attrs(node: Node, old: int, batch: int) -> dict[str, Attr]:
    attrs = dict(node.attrs)
    for name in ("shape", "sizes"):
        dims = attrs.get(name)
        if isinstance(dims, tuple) and dims and dims[0] == old and node.op in ("Reshape", "Slice"):
            attrs[name] = (batch, *dims[1:])  # type: ignore[assignment]
    return attrs
