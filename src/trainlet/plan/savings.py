"""What the passes that trade order for memory save: the peak of a graph without each of them."""

from __future__ import annotations

from dataclasses import replace

from trainlet.ir import Graph
from trainlet.passes import PASSES, run_passes
from trainlet.plan.liveness import lower_bound

# How it reads in a report -> the passes that do it, and the op that shows that they did.
TECHNIQUES = {
    "streaming by rows": (("stream-rows",), "StreamRows"),
    "groups of hidden channels": (("group-hidden", "widen-groups"), "HiddenGrad"),
}


def savings(derived: Graph, planned: Graph) -> dict[str, int]:
    """Technique -> bytes by which the largest sum of live bytes of `planned` would be higher without it.

    derived: the same function before any pass. "both": without any of them. Techniques that the plan does
    not use are left out.
    """
    used = {n.op for n in planned.nodes}
    dropped = {name: passes for name, (passes, op) in TECHNIQUES.items() if op in used}
    if len(dropped) > 1:
        dropped["both"] = tuple(p for passes in dropped.values() for p in passes)
    peak = lower_bound(planned)
    graph = replace(derived, placed=planned.placed)
    return {name: _peak(graph, passes) - peak for name, passes in dropped.items()}


def _peak(graph: Graph, without: tuple[str, ...]) -> int:
    if "stream-rows" in without and "rows" in graph.placed.values():
        graph = replace(graph, placed={})  # an image that cannot come by rows is in the arena
    return lower_bound(run_passes(graph, [p for p in PASSES if p not in without]))
