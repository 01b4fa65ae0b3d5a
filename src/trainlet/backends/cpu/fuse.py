"""Fusions on the plan: a node's result takes what follows it on its way to memory.

Behind a convolution, an input gradient or a sum: a residual that is added, a clip with its mask, the mask of
a gradient. Only where the last result lies where nothing else is alive meanwhile, so memory stays as planned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trainlet.ir import Node, Value
from trainlet.ir.storage import storage_roots
from trainlet.plan.program import Function

STARTS = ("Conv", "Gemm", "ConvInputGrad", "Add")


@dataclass(frozen=True)
class Ending:
    """What a kernel does before it stores (tl_finish.h). `out`: where; `nodes`: steps done by that."""

    out: Value | None = None
    add: Value | None = None
    lo: float = -math.inf
    hi: float = math.inf
    clips: bool = False
    mask: Value | None = None
    keep: Value | None = None
    nodes: tuple[int, ...] = field(default=())


def endings(f: Function, starts: object) -> dict[int, Ending]:
    """Step -> its ending, for every step whose kernel takes one: starts(node) says which."""
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(f.graph.nodes):
        for v in node.operands():
            readers.setdefault(v.name, []).append(i)
    kept = {v.name for v in (*f.graph.outputs, *f.graph.updates.values())}
    roots = storage_roots(f.graph)
    found: dict[int, Ending] = {}
    done: set[int] = set()
    for i, node in enumerate(f.graph.nodes):
        if i in done:
            continue
        ending = own_ending(node)
        if starts(node):  # type: ignore[operator]
            ending = _extend(f, i, ending, readers, kept, roots)
        found[i] = ending
        done |= set(ending.nodes)
    return found


def own_ending(node: Node) -> Ending:
    """What a node does by itself."""
    e = Ending(node.output)
    if node.op in ("Conv", "Gemm", "Clip"):
        lo, hi = float(node.attrs["lo"]), float(node.attrs["hi"])
        e = replace(e, lo=lo, hi=hi, clips=True, mask=node.outputs[1] if len(node.outputs) > 1 else None)
        clipped = math.isfinite(lo) or math.isfinite(hi) or e.mask is not None
        return e if clipped or node.op == "Clip" else replace(e, clips=False)
    if node.op == "ConvInputGrad":
        return replace(e, add=node.input(2))
    if node.op == "Add":
        return replace(e, add=node.input(1))
    return replace(e, keep=node.input(1)) if node.op == "MaskGrad" else e


def _extend(
    f: Function,
    start: int,
    e: Ending,
    readers: Mapping[str, list[int]],
    kept: set[str],
    roots: Mapping[str, str],
) -> Ending:
    """The ending with every following node it can take."""
    while e.out is not None and e.out.name not in kept and len(readers.get(e.out.name, [])) == 1:
        (at,) = readers[e.out.name]
        longer = _take(f.graph.nodes[at], e)
        if longer is None or not _free(f, start, at, longer, roots):
            break
        e = replace(longer, nodes=(*e.nodes, at))
    return e


def _take(node: Node, e: Ending) -> Ending | None:
    """e with `node` behind it, None where a kernel's ending has no place for it any more."""
    last = e.keep is not None
    if node.op == "Add" and not (last or e.clips or e.add is not None):
        a, b = node.inputs
        assert a is not None and b is not None
        other = b if a == e.out else a
        same = a.shape == b.shape == node.output.shape and a != b
        return replace(e, out=node.output, add=other) if same else None
    if node.op == "Clip" and not (last or e.clips):
        mine = own_ending(node)
        return replace(e, out=mine.out, lo=mine.lo, hi=mine.hi, clips=True, mask=mine.mask)
    if (
        node.op == "MaskGrad"
        and not (last or e.clips)
        and node.input(0) == e.out
        and node.attrs["factor"] == 1
    ):
        return replace(e, out=node.output, keep=node.input(1))
    return None


def _free(f: Function, start: int, end: int, e: Ending, roots: Mapping[str, str]) -> bool:
    """Whether everything the ending touches may be touched at step `start` instead of at `end`."""
    nodes = f.graph.nodes
    made = {v.name for n in nodes[start:end] for v in n.outputs}
    read = [v for v in (e.add, e.keep) if v is not None]
    if any(v.name in made for v in read):
        return False
    written = [v for v in (e.out, e.mask) if v is not None]
    if any(f.locations[v.name].memory != "arena" for v in written):
        return False
    mine = {roots[v.name] for v in (nodes[start].output, *written, *read)}
    results = {roots[v.name] for v in written}
    between = [n for i, n in enumerate(nodes[start + 1 : end], start + 1) if i not in e.nodes]
    if any(roots[v.name] in mine for n in between for v in (*n.operands(), *n.outputs)):
        return False
    whole = [v for v in nodes[start].operands() if v not in read] if nodes[start].op != "Add" else []
    if any(roots[v.name] in results for v in whole):
        return False
    values = {v.name: v for v in f.graph.values()}
    alive = [values[r.name] for r in f.ranges if r.start <= end and r.end >= start and r.name not in mine]
    return not any(_overlap(f, v, w) for v in alive for w in written)


def _overlap(f: Function, a: Value, b: Value) -> bool:
    """Whether two values share bytes of the arena."""
    x, y = f.locations[a.name], f.locations[b.name]
    return x.memory == y.memory == "arena" and x.offset < y.offset + b.bytes and y.offset < x.offset + a.bytes
