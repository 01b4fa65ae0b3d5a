"""The same network for another batch size.

A leading dimension may hold samples times something else (heads of an attention), samples outermost: it
grows by the same factor. What would mix samples then changes a shape, and is refused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainlet.errors import GraphError, ModelError
from trainlet.ir import Graph, GraphBuilder, Node, Tensor, Value
from trainlet.ir.graph import Attr

# Attributes that hold a result's shape, batch included.
WEIGHTED = ("Conv", "ConvInteger", "Gemm")
BATCHED = {"Reshape": "shape", "Slice": "sizes", "ReduceSum": "shape", "Expand": "shape"}


def rebatch(graph: Graph, batch: int) -> Graph:
    """An inference graph with every activation's leading dimension set to `batch`.

    Raises ModelError naming the layer whose shape mixes samples.
    """
    old = graph.inputs[0].shape[0]
    if batch == old:
        return graph
    b = GraphBuilder(graph.name)
    b.constants = {k: _once(t, graph, old) for k, t in graph.constants.items()}
    env: dict[str, Value] = {k: t.value for k, t in b.constants.items()}
    b._names |= set(env)
    for v in graph.inputs:
        env[v.name] = b.input(v.name, v.dtype, (batch, *v.shape[1:]), v.quant)
    for node in graph.nodes:
        inputs = [None if v is None else env[v.name] for v in node.inputs]
        if node.op == "Concat" and node.attrs["axis"] != 0:
            inputs = [_repeated(b, v, batch) for v in inputs]
        y, attrs = node.output, _attrs(node, old, batch)
        mixes = f"{node.op} at {node.source or y.name} mixes samples: batch must stay {old}"
        try:
            new = b.add(node.op, inputs, attrs, name=y.name, source=node.source, quant=y.quant)
        except GraphError:
            raise ModelError(mixes) from None
        if y.shape[0] % old or new.shape != (y.shape[0] // old * batch, *y.shape[1:]) or _cuts(node):
            raise ModelError(mixes)
        if y in graph.outputs and y.shape[0] != old:
            raise ModelError(mixes)
        env[y.name] = new
    return b.build([env[v.name] for v in graph.outputs])


def _once(t: Tensor, graph: Graph, old: int) -> Tensor:
    """A constant that holds the same for each of several samples (an expanded class token), for one."""
    data = t.data
    same = old > 1 and data.ndim > 1 and len(data) == old and bool((data == data[:1]).all())
    operand = any(
        v.name == t.value.name and len(v.shape) == len(n.output.shape) and n.op not in WEIGHTED
        for n in graph.nodes
        for v in n.operands()
    )
    if not same or not operand:
        return t
    return Tensor(replace(t.value, shape=(1, *data.shape[1:])), np.ascontiguousarray(data[:1]))


def _repeated(b: GraphBuilder, x: Value | None, batch: int) -> Value | None:
    """A constant that is concatenated to every sample, once a sample."""
    if x is None or x.name not in b.constants or x.shape[0] != 1 or batch == 1:
        return x
    return b.add("Expand", [x], {"shape": (batch, *x.shape[1:])}, name=f"{x.name}/repeated")


def _cuts(node: Node) -> bool:
    """Whether a layer takes parts of, or puts together, a leading dimension that holds more than samples."""
    x, y = node.input(0), node.output
    if node.op == "Concat":
        return int(node.attrs["axis"]) == 0
    return node.op in ("Slice", "Pad") and x is not None and x.shape[0] != y.shape[0]


def _attrs(node: Node, old: int, batch: int) -> dict[str, Attr]:
    attrs = dict(node.attrs)
    name, x = BATCHED.get(node.op), node.input(0)
    if name is None or x is None:
        return attrs
    dims = tuple(attrs[name])
    drops_batch = node.op == "ReduceSum" and len(dims) < len(x.shape)
    if node.op == "Reshape" and dims and dims[0] % old == 0:  # samples times something (heads), samples first
        attrs[name] = (dims[0] // old * batch, *dims[1:])
    elif dims and dims[0] == old and not drops_batch:
        attrs[name] = (batch, *dims[1:])
    return attrs
