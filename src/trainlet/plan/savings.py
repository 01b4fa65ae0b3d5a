"""What the passes that trade order for memory save: the peak of a graph without each of them."""

from __future__ import annotations

from dataclasses import replace

from trainlet.ir import Graph
from trainlet.passes import OPTIONAL, PASSES, run_passes
from trainlet.passes.recompute import recomputed
from trainlet.plan.liveness import lower_bound

# How it reads in a report -> the passes that do it, and the op that shows that they did.
TECHNIQUES = {
    "streaming by rows": (("stream-rows",), "StreamRows"),
    "groups of hidden channels": (("group-hidden", "widen-groups"), "HiddenGrad"),
}


def savings(derived: Graph, planned: Graph) -> dict[str, int]:
    """Technique -> bytes by which the largest sum of live bytes of `planned` would be higher without it.

    derived: the same function before any pass. "both": without any of them. Techniques that the plan does
    not use, or that save nothing, are left out.
    """
    used = {n.op for n in planned.nodes}
    dropped = {name: passes for name, (passes, op) in TECHNIQUES.items() if op in used}
    if len(dropped) > 1:
        dropped["both"] = tuple(p for passes in dropped.values() for p in passes)
    peak = lower_bound(planned)
    graph = replace(derived, placed=planned.placed)
    target = peak if recomputed(planned) else None
    saved = {name: _peak(graph, passes, target) - peak for name, passes in dropped.items()}
    return {name: count for name, count in saved.items() if count > 0}


def _peak(graph: Graph, without: tuple[str, ...], target_bytes: int | None) -> int:
    """target_bytes: of recomputation, where the plan has some."""
    without += OPTIONAL if target_bytes is None else ()
    if "stream-rows" in without and "rows" in graph.placed.values():
        graph = replace(graph, placed={})  # an image that cannot come by rows is in the arena
    names = [p for p in PASSES if p not in without]
    return lower_bound(run_passes(graph, names, arena_target_bytes=target_bytes))
