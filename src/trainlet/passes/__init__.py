"""The passes, in the order they run. Each is a pure function Graph -> Graph; the verifier runs after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from trainlet.errors import GraphError
from trainlet.ir import Graph, Node, verify
from trainlet.passes.eliminate import eliminate_dead
from trainlet.passes.fold import fold_constants, fold_overlays
from trainlet.passes.fuse import fuse
from trainlet.passes.hidden import group_hidden, widen_groups
from trainlet.passes.inplace import reuse_in_place
from trainlet.passes.recompute import recompute
from trainlet.passes.reorder import reorder
from trainlet.passes.stream import stream_rows

PASSES: dict[str, Callable[[Graph], Graph]] = {
    "fold-constants": fold_constants,
    "fold-overlays": fold_overlays,
    "eliminate-dead": eliminate_dead,
    "fuse": fuse,
    "group-hidden": group_hidden,
    "reorder": reorder,
    "recompute": recompute,
    "stream-rows": stream_rows,
    "widen-groups": widen_groups,
    "reuse-in-place": reuse_in_place,
}

OPTIONAL = ("recompute",)  # costs time: runs only where a memory budget asks for it


def run_passes(
    graph: Graph,
    names: Sequence[str] | None = None,
    watch: Callable[[str, Graph], None] = lambda name, graph: None,
    enough_bytes: int = 0,
    arena_target_bytes: int | None = None,
) -> Graph:
    """`graph` after the named passes (all but OPTIONAL by default); watch(name, graph) is called after each.

    arena_target_bytes: also recompute, until the peak is as low as this.
    enough_bytes: a peak that another function has, below which there is nothing to gain.
    Raises GraphError for an unknown pass, or when a pass breaks a rule of the IR.
    """
    if names is None:
        names = [n for n in PASSES if n not in OPTIONAL or arena_target_bytes is not None]
    known: dict[int, Node] = {}
    for name in names:
        if name not in PASSES:
            raise GraphError(f"no pass {name!r}: there are {', '.join(PASSES)}")
        run = PASSES[name]
        if name == "stream-rows":
            run = partial(stream_rows, enough_bytes=enough_bytes)
        elif name == "recompute":
            run = partial(recompute, target_bytes=max(arena_target_bytes or 0, enough_bytes))
        graph = verify(run(graph), known)
        watch(name, graph)
    return graph
