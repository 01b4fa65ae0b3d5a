"""A memory that is walked step by step: every operand must still hold what was written for it.

Independent of the planner and of the in-place pass: it knows only who writes which bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops import OPS
from trainlet.plan.program import Function

Place = tuple[str, int]  # memory and offset in bytes


@dataclass
class Memory:
    """Who wrote which bytes last; `where` gives each value's place."""

    where: Mapping[str, Place]
    held: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # content -> memory, begin, end

    def span(self, value: Value) -> tuple[str, int, int]:
        memory, offset = self.where[value.name]
        return memory, offset, offset + value.bytes

    def write(self, value: Value, content: str) -> None:
        """Put `content` at value's place; whatever lay there is lost."""
        memory, begin, end = self.span(value)
        for name, (m, a, b) in list(self.held.items()):
            if m == memory and a < end and begin < b:
                del self.held[name]
        self.held[content] = (memory, begin, end)

    def check(self, value: Value, content: str, reader: str) -> None:
        assert self.held.get(content) == self.span(value), f"{reader}: {value.name} was overwritten"


def overlap(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def walk(
    graph: Graph, where: Mapping[str, Place], start: int = 0, alive: Mapping[str, str] | None = None
) -> None:
    """Execute the nodes from `start` on; fails where a node reads bytes that another value overwrote.

    `alive`: the values that are in place at `start` (default: inputs); constants and states always are.
    """
    memory = Memory(where)
    fixed = [t.value for t in (*graph.constants.values(), *graph.state.values())]
    contents = {v.name: v.name for v in (*graph.inputs, *fixed)}  # a view has its operand's content
    for node in graph.nodes[:start]:
        _name_contents(node, contents)
    placed = {v.name: v for v in graph.values()}
    for name in [*(v.name for v in fixed), *(alive if alive is not None else (v.name for v in graph.inputs))]:
        memory.write(placed[name], contents[name])
    for node in graph.nodes[start:]:
        for v in node.operands():
            memory.check(v, contents[v.name], f"{node.op} -> {node.output.name}")
        _name_contents(node, contents)
        if not OPS[node.op].view:
            _check_aliases(graph, node, memory)
            for v in node.outputs:
                memory.write(v, v.name)
    for v in graph.outputs:
        memory.check(v, contents[v.name], "return")
    for name, v in graph.updates.items():
        assert memory.span(v) == memory.span(graph.state[name].value), f"{v.name} is not stored as {name}"
        memory.check(v, contents[v.name], f"state {name}")


def _name_contents(node: Node, contents: dict[str, str]) -> None:
    for v in node.outputs:
        contents[v.name] = contents[node.inputs[0].name] if OPS[node.op].view else v.name  # type: ignore[union-attr]


def _check_aliases(graph: Graph, node: Node, memory: Memory) -> None:
    """A result may lie on an operand only exactly, where the op allows it or it is the state's new value."""
    spans = [memory.span(v) for v in node.outputs]
    for i, span in enumerate(spans):
        assert not any(overlap(span, other) for other in spans[:i]), f"results of {node.output.name} overlap"
        for j, v in enumerate(node.inputs):
            if v is not None and overlap(span, memory.span(v)):
                allowed = j in OPS[node.op].inplace.get(i, ()) or graph.updates.get(v.name) == node.outputs[i]
                at = f"{node.op}: {node.outputs[i].name} overwrites {v.name} while it is read"
                assert allowed and span == memory.span(v), at


def planned(function: Function) -> dict[str, Place]:
    """Places of a planned function; constants and arguments get memory of their own."""
    found = {}
    for v in function.graph.values():
        at = function.locations[v.name]
        alone = at.memory in ("flash", "argument") and not at.offset
        found[v.name] = (_origin(function.graph, v.name), 0) if alone else (at.memory, at.offset)
    return found


def own_memory(graph: Graph) -> dict[str, Place]:
    """Places where every tensor is alone but for views, in-place results and updated states."""
    where = {v.name: (v.name, 0) for v in graph.values()}
    states = {v.name: name for name, v in graph.updates.items()}
    for node in graph.nodes:
        for i, v in enumerate(node.outputs):
            at = 0 if OPS[node.op].view else node.attrs.get("inplace") if i == 0 else None
            if v.name in states:
                where[v.name] = (states[v.name], 0)
            elif at is not None:
                where[v.name] = where[node.inputs[at].name]  # type: ignore[index, union-attr]
    return where


def _origin(graph: Graph, name: str) -> str:
    """The tensor that a view of a constant or argument shows."""
    producers = graph.producers()
    while (node := producers.get(name)) is not None and OPS[node.op].view:
        name = node.inputs[0].name  # type: ignore[union-attr]
    return name
