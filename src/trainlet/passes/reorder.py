"""Reordering: update as soon as the gradient is known, smallest peak first."""

from __future__ import annotations

from trainlet.ir import Graph, Node
from trainlet.passes.inplace import reuse_in_place
from trainlet.plan.liveness import arena_ranges, live_bytes


def reorder(graph: Graph) -> Graph:
    """Of the given order and a greedy one, the one of least peak memory.

    Where the peaks are equal the next largest step decides, and so on: later passes lower the peak of the
    forward part, and what is left is then the peak.

    A node that overwrites a state comes after every reader of its old value. Greedy: of the nodes
    that are ready, first the one that frees most (an update frees its gradient), then the earliest.
    """
    candidates = [in_order(graph), graph.with_nodes(_greedy(graph))]
    return min(candidates, key=_descending)


def _descending(graph: Graph) -> list[int]:
    """Bytes alive at each step, most first: a peak that a later pass lowers must not hide the next one."""
    return sorted(live_bytes(arena_ranges(reuse_in_place(graph)), len(graph.nodes)), reverse=True)


def in_order(graph: Graph) -> Graph:
    """The same nodes where each comes after all that it needs, otherwise in the given order."""
    return graph.with_nodes(_constrained(graph))


def dependencies(graph: Graph) -> list[set[int]]:
    """Per node the nodes that must come before it: producers, and readers of a state it overwrites."""
    made = {v.name: i for i, node in enumerate(graph.nodes) for v in node.outputs}
    before: list[set[int]] = [{made[v.name] for v in n.operands() if v.name in made} for n in graph.nodes]
    readers: dict[str, set[int]] = {}
    for i, node in enumerate(graph.nodes):
        for v in node.operands():
            readers.setdefault(v.name, set()).add(i)
    for state, value in graph.updates.items():
        if value.name in made:
            writer = made[value.name]
            before[writer] |= readers.get(state, set()) - {writer}
    return before


def _constrained(graph: Graph) -> list[Node]:
    """The given order, moving only what must move."""
    return _schedule(graph, lambda i, alive: (i,))


def _greedy(graph: Graph) -> list[Node]:
    sizes = {v.name: v.bytes for v in graph.values()}
    remaining: dict[str, int] = {}
    for node in graph.nodes:
        for name in {v.name for v in node.operands()}:
            remaining[name] = remaining.get(name, 0) + 1
    fixed = {
        *graph.constants,
        *graph.state,
        *(v.name for v in graph.inputs),
        *(v.name for v in graph.outputs),
    }
    updated = {v.name for v in graph.updates.values()}

    def growth(i: int, done: dict[str, int]) -> tuple[int, ...]:
        node = graph.nodes[i]
        freed = sum(
            sizes[name]
            for name in {v.name for v in node.operands()}
            if name not in fixed and remaining[name] - done.get(name, 0) == 1
        )
        new = sum(v.bytes for v in node.outputs if v.name not in updated)
        if freed >= new and freed > 0:
            return (0, new - freed, i)
        return (1 if new == 0 else 2, 0, i)  # an update that frees nothing yet lets its gradient die sooner

    return _schedule(graph, growth)


def _schedule(graph: Graph, key: object) -> list[Node]:
    before = dependencies(graph)
    after: list[list[int]] = [[] for _ in before]
    waiting = [len(b) for b in before]
    for i, b in enumerate(before):
        for j in b:
            after[j].append(i)
    ready = [i for i, n in enumerate(waiting) if n == 0]
    done: dict[str, int] = {}
    order: list[Node] = []
    while ready:
        i = min(ready, key=lambda j: key(j, done))  # type: ignore[operator]
        ready.remove(i)
        order.append(graph.nodes[i])
        for name in {v.name for v in graph.nodes[i].operands()}:
            done[name] = done.get(name, 0) + 1
        for j in after[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                ready.append(j)
    assert len(order) == len(graph.nodes), "a state is read after its own update"
    return order
