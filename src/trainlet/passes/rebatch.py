"""The same network for another batch size."""

from __future__ import annotations

from trainlet.errors import GraphError, ModelError
from trainlet.ir import Graph, GraphBuilder, Node, Value
from trainlet.ir.graph import Attr

# Attributes that hold a result's shape, batch included.
BATCHED = {"Reshape": "shape", "Slice": "sizes", "ReduceSum": "shape"}


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
        y, attrs = node.output, _attrs(node, old, batch)
        mixes = f"{node.op} at {node.source or y.name} mixes samples: batch must stay {old}"
        try:
            new = b.add(node.op, inputs, attrs, name=y.name, source=node.source, quant=y.quant)
        except GraphError:
            raise ModelError(mixes) from None
        if new.shape != (batch, *y.shape[1:]):
            raise ModelError(mixes)
        env[y.name] = new
    return b.build([env[v.name] for v in graph.outputs])


def _attrs(node: Node, old: int, batch: int) -> dict[str, Attr]:
    attrs = dict(node.attrs)
    name, x = BATCHED.get(node.op), node.input(0)
    if name is None or x is None:
        return attrs
    dims = tuple(attrs[name])
    drops_batch = node.op == "ReduceSum" and len(dims) < len(x.shape)
    if dims and dims[0] == old and not drops_batch:
        attrs[name] = (batch, *dims[1:])
    return attrs
