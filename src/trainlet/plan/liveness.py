"""When each piece of memory is alive: views, in-place results and updated states share one."""

from __future__ import annotations

from dataclasses import dataclass

from trainlet.ir import Graph, Value
from trainlet.ir.storage import storage_roots

# Scalars that the caller passes by value: they take no memory of the plan.
ARGUMENTS = ("lr", "factor")


@dataclass(frozen=True)
class LiveRange:
    """Memory of one arena tensor: alive from step `start` to step `end`, both included.

    Step i is node i; step -1 is the call itself (inputs), step len(nodes) its return (outputs).
    """

    name: str
    bytes: int
    start: int
    end: int


def arena_ranges(graph: Graph) -> list[LiveRange]:
    """Live ranges of everything that lives in the arena, in order of definition."""
    roots = storage_roots(graph)
    elsewhere = {*graph.constants, *graph.state, *graph.placed, *ARGUMENTS}
    start: dict[str, int] = {}
    end: dict[str, int] = {}
    size: dict[str, int] = {}

    def touch(value: Value, step: int) -> None:
        name = roots[value.name]
        start.setdefault(name, step)
        end[name] = max(end.get(name, step), step)
        size[name] = max(size.get(name, 0), value.bytes)

    for value in graph.inputs:
        touch(value, -1)
    for i, node in enumerate(graph.nodes):
        for value in (*node.operands(), *node.outputs):
            touch(value, i)
    for value in graph.outputs:
        touch(value, len(graph.nodes))
    return [LiveRange(n, size[n], start[n], end[n]) for n in start if n not in elsewhere and size[n]]


def live_bytes(ranges: list[LiveRange], steps: int) -> list[int]:
    """Bytes alive at each step, from the call (index 0) to the return (index steps + 1)."""
    delta = [0] * (steps + 3)
    for r in ranges:
        delta[r.start + 1] += r.bytes
        delta[r.end + 2] -= r.bytes
    total, out = 0, []
    for d in delta[:-1]:
        total += d
        out.append(total)
    return out


def lower_bound(graph: Graph) -> int:
    """Largest sum of live bytes: no placement of this order can need less."""
    return max(live_bytes(arena_ranges(graph), len(graph.nodes)))
