"""Rules every graph keeps; run after each pass."""

from __future__ import annotations

from trainlet.errors import GraphError
from trainlet.ir.graph import PLACES, Graph, Node, Value
from trainlet.ir.ops import infer_node


def verify(graph: Graph, known: dict[int, Node] | None = None) -> Graph:
    """The graph itself. Raises GraphError where a value is undefined, defined twice or of a wrong type.

    Also checks that updates keep their state's type, and that every node obeys the op table. known: nodes, by
    id, that do obey it; those that are found to are added. (A node never changes.)
    """
    known = {} if known is None else known
    defined: dict[str, Value] = {}
    tensors = (*graph.constants.values(), *graph.state.values())
    for value in (*graph.inputs, *(t.value for t in tensors)):
        _define(graph, defined, value)
    for tensor in tensors:
        if tensor.data.shape != tensor.value.shape:
            raise GraphError(f"{graph.name}: data of {tensor.value.name} has shape {tensor.data.shape}")
    for name, place in graph.placed.items():
        if place not in PLACES or all(v.name != name for v in graph.inputs):
            raise GraphError(f"{graph.name}: {name} in {place}: inputs are in {' or '.join(PLACES)}")
    for node in graph.nodes:
        _check_operands(graph, defined, node)
        if id(node) not in known:
            _check_node(graph, node)
            known[id(node)] = node
        for value in node.outputs:
            _define(graph, defined, value)
    for value in (*graph.outputs, *graph.updates.values()):
        _read(graph, defined, value, "the graph's results")
    for name, value in graph.updates.items():
        state = graph.state.get(name)
        if state is None or (state.value.dtype, state.value.shape) != (value.dtype, value.shape):
            raise GraphError(f"{graph.name}: update of {name} by {value.name} changes its type")
    return graph


def _define(graph: Graph, defined: dict[str, Value], value: Value) -> None:
    if value.name in defined:
        raise GraphError(f"{graph.name}: value {value.name} is defined twice")
    defined[value.name] = value


def _read(graph: Graph, defined: dict[str, Value], value: Value, where: str) -> None:
    if value.name not in defined:
        raise GraphError(f"{graph.name}: {where} read {value.name} before it is defined")
    if defined[value.name] != value:
        raise GraphError(f"{graph.name}: {where} read {value}, defined as {defined[value.name]}")


def _check_operands(graph: Graph, defined: dict[str, Value], node: Node) -> None:
    where = f"{node.op} -> {node.output.name}"
    for value in node.operands():
        _read(graph, defined, value, where)


def _check_node(graph: Graph, node: Node) -> None:
    where = f"{node.op} -> {node.output.name}"
    _, results = infer_node(node.op, node.inputs, node.attrs, node.source or where, len(node.outputs))
    for value, (dtype, shape) in zip(node.outputs, results, strict=True):
        if (value.dtype, value.shape) != (dtype, shape):
            raise GraphError(
                f"{graph.name}: {where} is {value.dtype}{list(value.shape)}, "
                f"its op gives {dtype}{list(shape)}"
            )
