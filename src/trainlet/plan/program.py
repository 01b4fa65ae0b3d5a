"""The plan: functions in execution order, every value at an address, every memory with a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from trainlet.errors import BudgetError
from trainlet.ir import Graph, Node, Tensor, Value
from trainlet.ir.storage import storage_roots
from trainlet.passes import run_passes
from trainlet.plan.arena import ALIGNMENT, place
from trainlet.plan.liveness import ARGUMENTS, LiveRange, arena_ranges, live_bytes, lower_bound
from trainlet.plan.over_budget import over_budget
from trainlet.plan.savings import savings
from trainlet.train.autodiff import TrainingModule

MEMORIES = ("flash", "arena", "state", "scratch")
Watch = Callable[[str, Graph], None]


@dataclass(frozen=True)
class Location:
    """Where a value lies: memory "flash", "arena", "state", "argument"; "caller" or "rows" (Graph.placed).

    offset in bytes.
    """

    memory: str
    offset: int = 0


@dataclass(frozen=True)
class Function:
    """One planned function. Steps are `graph.nodes` in order.

    The first `prefix_steps` depend on no trained tensor: what is alive after them (`boundary`)
    can be kept and put back, so that a sample seen before skips them.
    """

    graph: Graph
    locations: Mapping[str, Location]
    ranges: tuple[LiveRange, ...]
    peak_bytes: int
    lower_bound_bytes: int
    scratch_bytes: int
    prefix_steps: int
    boundary: tuple[Value, ...]

    @property
    def sample(self) -> str:
        """Where samples are: "arena", "caller" or "rows"."""
        return next(iter(self.graph.placed.values()), "arena")

    @property
    def peak_step(self) -> int:
        """Step at which most bytes are alive: -1 the call, len(nodes) the return."""
        alive = live_bytes(list(self.ranges), len(self.graph.nodes))
        return alive.index(max(alive)) - 1

    def peak_live(self) -> list[LiveRange]:
        """What is alive at the peak, largest first."""
        at = self.peak_step
        return sorted((r for r in self.ranges if r.start <= at <= r.end), key=lambda r: (-r.bytes, r.name))

    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of the forward and of the backward part."""
        from trainlet.ir.ops import OPS

        counts = {"forward": 0, "backward": 0}
        for node in self.graph.nodes:
            counts["backward" if "Grad" in node.op else "forward"] += OPS[node.op].macs(node)
        return counts


@dataclass(frozen=True)
class Program:
    """Everything a backend needs: no decision about memory or order is left."""

    name: str
    module: TrainingModule
    functions: Mapping[str, Function]
    constants: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    state_offsets: Mapping[str, int]
    bytes: Mapping[str, int]

    @property
    def main(self) -> Function:
        """The function that trains: step, or accumulate."""
        return self.functions.get("step") or self.functions["accumulate"]

    @cached_property
    def saved_bytes(self) -> dict[str, int]:
        """Technique -> bytes by which the peak of the training function would be higher without it."""
        name = "step" if "step" in self.functions else "accumulate"
        return savings(replace(self.module.functions[name], placed=self.main.graph.placed), self.main.graph)

    @property
    def sample(self) -> str:
        """Where samples are: "arena", "caller" or "rows"."""
        return self.main.sample

    @property
    def sample_bytes(self) -> int:
        """Bytes of the samples of a training call that are the caller's, beside `ram_bytes`."""
        return self.main.graph.inputs[0].bytes if self.sample == "caller" else 0

    @property
    def ram_bytes(self) -> int:
        """Everything the program touches but the stack, and samples that stay with the caller."""
        return self.bytes["arena"] + self.bytes["state"] + self.bytes["scratch"]

    def over(self, budget_bytes: int) -> BudgetError:
        """The error for a budget that RAM exceeds; it names what is alive at the peak."""
        return BudgetError(over_budget(self, budget_bytes))


def plan(
    module: TrainingModule,
    scratch: Callable[[Node], int],
    budget_bytes: int | None = None,
    watch: Watch = lambda name, graph: None,
    passes: Sequence[str] | None = None,
    alignment: int = ALIGNMENT,
    finish: Callable[[Graph], Graph] = lambda graph: graph,
    sample: str = "arena",
    arena_target_bytes: int | None = None,
    thorough: bool = True,
) -> Program:
    """Order, offsets and sizes of every function; scratch(node) is what the backend's kernel needs.

    Functions run one at a time and share the arena. `passes`: other than all of them, in order; `finish`: the
    backend's own, after them. `alignment`: of every tensor, in bytes. `sample`: where samples are, "arena" or
    one of PLACES (Graph.placed says what that means). arena_target_bytes: activations are recomputed until
    the arena is as small as this, where that helps. thorough: False places tensors at once instead of well,
    for a program that is only to run here (plan/arena.py).
    Raises BudgetError, naming what is alive at the peak, when arena + state + scratch exceed budget_bytes;
    SchemeError where samples cannot come by rows.
    """
    optimized = _optimized(module, passes, watch, sample, arena_target_bytes)
    graphs = {name: finish(graph) for name, graph in optimized.items()}
    state = {k: t for g in graphs.values() for k, t in g.state.items()}
    constants = {k: t for g in graphs.values() for k, t in g.constants.items()}
    offsets, state_bytes = _stack(state, alignment)
    functions = {
        name: _function(graph, offsets, scratch, alignment, thorough) for name, graph in graphs.items()
    }
    sizes = {
        "flash": _flash(module, constants),
        "arena": max(f.peak_bytes for f in functions.values()),
        "state": state_bytes,
        "scratch": max(f.scratch_bytes for f in functions.values()),
    }
    name = module.functions["predict"].name.removesuffix(".predict")
    program = Program(name, module, functions, constants, state, offsets, sizes)
    if budget_bytes is not None and program.ram_bytes > budget_bytes:
        raise program.over(budget_bytes)
    return program


def _optimized(
    module: TrainingModule,
    passes: Sequence[str] | None,
    watch: Watch,
    sample: str,
    arena_target_bytes: int | None,
) -> dict[str, Graph]:
    """Every function after the passes; the others need not be smaller than the one that trains."""
    x = module.functions["predict"].inputs[0].name
    graphs: dict[str, Graph] = {}
    enough = 0
    for name in sorted(module.functions, key=lambda name: name not in ("step", "accumulate")):
        graph = module.functions[name]
        if sample != "arena" and any(v.name == x for v in graph.inputs):
            graph = replace(graph, placed={x: sample})
        graphs[name] = run_passes(graph, passes, watch, enough, arena_target_bytes)
        enough = max(enough, lower_bound(graphs[name]))
    return {name: graphs[name] for name in module.functions}


def _flash(module: TrainingModule, constants: Mapping[str, Tensor]) -> int:
    """Constants, and the factory values of trained tensors that no function reads from flash."""
    factory = sum(p.factory.nbytes for p in module.parameters if p.name not in constants)
    return factory + sum(t.value.bytes for t in constants.values())


def _stack(state: Mapping[str, Tensor], alignment: int) -> tuple[dict[str, int], int]:
    offsets, at = {}, 0
    for name, tensor in state.items():
        offsets[name] = at
        at += -(-tensor.value.bytes // alignment) * alignment
    return offsets, at


def _function(
    graph: Graph,
    state_offsets: Mapping[str, int],
    scratch: Callable[[Node], int],
    alignment: int,
    thorough: bool,
) -> Function:
    ranges = arena_ranges(graph)
    placement = place(ranges, alignment, thorough)
    roots = storage_roots(graph)
    locations = {
        v.name: _locate(graph, roots[v.name], placement.offsets, state_offsets) for v in graph.values()
    }
    prefix = _prefix(graph)
    return Function(
        graph,
        locations,
        tuple(ranges),
        placement.peak_bytes,
        max(live_bytes(ranges, len(graph.nodes))),
        max((scratch(node) for node in graph.nodes), default=0),
        prefix,
        _boundary(graph, prefix),
    )


def _locate(graph: Graph, root: str, arena: Mapping[str, int], state: Mapping[str, int]) -> Location:
    if root in graph.constants:
        return Location("flash")
    if root in graph.state:
        return Location("state", state[root])
    if root in graph.placed:
        return Location(graph.placed[root])
    return Location("argument") if root in ARGUMENTS else Location("arena", arena[root])


def _prefix(graph: Graph) -> int:
    """Number of leading nodes that depend on nothing but the sample and constants."""
    known = {graph.inputs[0].name, *graph.constants} if graph.inputs else set()
    for i, node in enumerate(graph.nodes):
        if not all(v.name in known for v in node.operands()):
            return i
        known |= {v.name for v in node.outputs}
    return len(graph.nodes)


def _boundary(graph: Graph, prefix: int) -> tuple[Value, ...]:
    """Values alive between the prefix and the rest, the sample itself included where it still is.

    A sample of the caller's comes first, aligned: it is read where it is kept.
    """
    made = {v.name: v for v in graph.inputs[:1] if v.name in graph.placed}
    made |= {v.name: v for n in graph.nodes[:prefix] for v in n.outputs}
    made |= {graph.inputs[0].name: graph.inputs[0]} if graph.inputs else {}
    later = {v.name for n in graph.nodes[prefix:] for v in n.operands()} | {v.name for v in graph.outputs}
    return tuple(v for name, v in made.items() if name in later)
