"""One look at a plan: live bytes by layer and direction, work, scratch and state, without placing anything.

What the search knows about memory comes from here, so it stays true when passes change: nothing about
streaming, grouping or the order of the backward part is written down a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from trainlet import api
from trainlet.backends.c99 import BOARD_LANES, HOST_LANES, scratch_bytes
from trainlet.ir import Graph
from trainlet.passes import OPTIONAL, PASSES
from trainlet.plan.liveness import arena_ranges, live_bytes
from trainlet.scheme import UpdateScheme
from trainlet.scheme.layers import WEIGHTED
from trainlet.train.parameters import Parameter

WORK = ("forward", "input-gradient", "weight-gradient")
ALIGNMENT = 4
SPENDERS = ("widen-groups",)


@dataclass(frozen=True)
class Profile:
    """What a scheme's training function needs, the placement of its tensors left out.

    live: (2, units) most bytes alive at once while a unit runs, forward in row 0, backward in row 1. A unit
    is what carries one source name in the network; where a pass merged several, each has the merged one's
    value. work: multiply-accumulates by WORK x (dense, depthwise), (3, 2). elements: results of everything
    else.
    """

    live: np.ndarray
    work: np.ndarray
    elements: int
    scratch_bytes: int
    predict_bytes: int
    state_bytes: int


def units(graph: Graph) -> list[str]:
    """Source names of a network in execution order, the loss last."""
    return [*dict.fromkeys(n.source for n in graph.nodes), "loss"]


def probe(
    graph: Graph, settings: api.Settings, scheme: UpdateScheme, for_board: bool, with_predict: bool = True
) -> Profile:
    """The profile of `scheme` after all passes; like `api.plan`, but for the placement.

    Without `with_predict`, inference counts as nothing.
    """
    module = api.derive(graph, replace(settings, scheme=scheme))
    wanted = {k: g for k, g in module.functions.items() if k != "predict" or with_predict}
    functions = {name: _passed(g, settings.input) for name, g in wanted.items()}
    network = api.prepare(graph, replace(settings, scheme=scheme))[0]
    names = units(network)
    trained = {*scheme.weights, *scheme.biases}
    sources = [n.source for n in network.nodes if any(v.name in trained for v in n.operands())]
    first = min(names.index(source) for source in sources)
    lanes = BOARD_LANES if for_board else HOST_LANES
    main = functions.get("step") or functions["accumulate"]
    other = [_peak(g) for g in functions.values() if g is not main]
    work, elements = _work(main)
    return Profile(
        _live(main, names, first),
        work,
        elements,
        max(scratch_bytes(node, lanes) for g in functions.values() for node in g.nodes),
        max(other, default=0),
        state_bytes({k: t.value.bytes for g in functions.values() for k, t in g.state.items()}.values()),
    )


def _passed(graph: Graph, sample: str) -> Graph:
    """After the passes that lower the peak, samples placed as the settings say.

    Not after those that take what room is left below it (SPENDERS): how much that is depends on the scheme.
    The verifier, half of the time, is left to the plan that is handed out.
    """
    if sample != "arena" and graph.inputs[0].name not in ("lr", "factor"):
        graph = replace(graph, placed={graph.inputs[0].name: sample})
    for name, change in PASSES.items():
        graph = graph if name in SPENDERS or name in OPTIONAL else change(graph)
    return graph


def state_bytes(sizes: Iterable[int]) -> int:
    """Bytes of state tensors of these sizes, each aligned as the planner stacks them."""
    return sum(-(-n // ALIGNMENT) * ALIGNMENT for n in sizes)


def parameter_bytes(p: Parameter) -> int:
    """State of one trained tensor: values, fractions, optimizer slots."""
    return state_bytes([t.value.bytes for t in p.tensors.values()])


def _peak(graph: Graph) -> int:
    return max(live_bytes(arena_ranges(graph), len(graph.nodes)))


def _live(graph: Graph, names: list[str], first: int) -> np.ndarray:
    """(2, units): the most live bytes at a unit's steps; 0 where it has none in that direction."""
    alive = live_bytes(arena_ranges(graph), len(graph.nodes))
    position = {name: i for i, name in enumerate(names)}
    result = np.zeros((2, len(names)))
    backward, unit = 0, 0
    for node, bytes_ in zip(graph.nodes, alive[1:], strict=False):
        unit = position.get(node.source, unit)
        result[backward, unit] = max(result[backward, unit], bytes_)
        if node.source == "loss" and node.op.endswith("Grad") is False:
            backward = 1
    result[0, 0] = max(result[0, 0], alive[0])
    return _filled(result, first)


def _filled(live: np.ndarray, first: int) -> np.ndarray:
    """Units that a pass merged into a neighbour that runs earlier get its value; backward, down to the first
    trained."""
    for i in range(1, live.shape[1]):
        if live[0, i] == 0:
            live[0, i] = live[0, i - 1]
    for i in range(live.shape[1] - 2, first - 1, -1):
        if live[1, i] == 0:
            live[1, i] = live[1, i + 1]
    return live


def _work(graph: Graph) -> tuple[np.ndarray, int]:
    from trainlet.ir.ops import OPS

    work, elements = np.zeros((3, 2)), 0
    for node in graph.nodes:
        macs = OPS[node.op].macs(node)
        kind = 2 if "WeightGrad" in node.op else 1 if "Grad" in node.op else 0
        work[kind, int(_depthwise(node))] += macs
        elements += 0 if macs else node.output.size
    return work, elements


def _depthwise(node: object) -> bool:
    groups = node.attrs.get("groups", 1)  # type: ignore[attr-defined]
    return isinstance(groups, int) and groups > 1


__all__ = ["WEIGHTED", "WORK", "Profile", "parameter_bytes", "probe", "state_bytes", "units"]
