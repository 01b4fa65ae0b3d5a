"""From a network and settings to a program: prepared, derived, planned, written, built."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trainlet.api.settings import Settings, check_values, checkpoint_meta
from trainlet.errors import BudgetError
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.scheme import Selection, UpdateScheme, replace_head, resolve_scheme, select
from trainlet.train.autodiff import TrainingModule

if TYPE_CHECKING:
    from trainlet.plan.budget import MemoryChoice
    from trainlet.plan.program import Program, Watch
    from trainlet.runtime.host import HostProgram


def graph_of(model: str | Path | Graph) -> Graph:
    return model if isinstance(model, Graph) else load(model)


def prepare(model: str | Path | Graph, settings: Settings) -> tuple[Graph, Selection]:
    """The network with its new head and batch size, and what the scheme trains of it."""
    from trainlet.passes.rebatch import rebatch

    graph = graph_of(model)
    check_values(settings)
    if settings.classes is not None:
        graph = replace_head(graph, settings.classes, settings.seed)
    graph = rebatch(graph, 1)
    return graph, select(resolve_scheme(settings.scheme, graph), graph)


def derive(model: str | Path | Graph, settings: Settings) -> TrainingModule:
    """The functions of the training program before any pass; predict takes one sample, training a batch."""
    from trainlet.passes.rebatch import rebatch
    from trainlet.train.autodiff import derive as derive_graph

    graph, selection = prepare(model, settings)
    optimizer = settings.update_rule()
    single = derive_graph(graph, selection, optimizer, settings.loss, settings.accumulate)
    if settings.batch == 1:
        return single
    batch = rebatch(graph, settings.batch)
    module = derive_graph(batch, selection, optimizer, settings.loss, settings.accumulate)
    return replace(module, functions={**module.functions, "predict": single.functions["predict"]})


def plan(
    model: str | Path | Graph,
    settings: Settings,
    watch: Watch = lambda name, graph: None,
    for_board: bool = False,
    thorough: bool = True,
) -> Program:
    """The planned Program of a network under a scheme. Raises BudgetError over settings.budget_bytes.

    watch(pass name, graph) is called after each pass over each function. for_board: with the smaller scratch
    of kernels built for a microcontroller (TL_LANES 4), not for this machine. thorough: as in `plan.plan`.
    """
    program = _plan_any(model, replace(settings, budget_bytes=None), watch, for_board, thorough)
    if settings.budget_bytes is not None and program.ram_bytes > settings.budget_bytes:
        from trainlet.plan.over_budget import over_budget

        words = over_budget(program, settings.budget_bytes)
        raise BudgetError(f"{words} {_nearest(model, settings, settings.budget_bytes, for_board)}")
    return program


def _plan_any(
    model: str | Path | Graph, settings: Settings, watch: Watch, for_board: bool, thorough: bool = True
) -> Program:
    """The plan, however large."""
    from trainlet.backends.c99 import BOARD_LANES, HOST_LANES, scratch_bytes
    from trainlet.plan.program import plan as plan_module

    lanes = BOARD_LANES if for_board else HOST_LANES
    return plan_module(
        derive(model, settings),
        partial(scratch_bytes, lanes=lanes),
        watch=watch,
        sample=settings.input,
        arena_target_bytes=settings.arena_target_bytes,
        thorough=thorough,
    )


def within_budget(
    model: str | Path | Graph, settings: Settings, for_board: bool = False
) -> tuple[Settings, MemoryChoice | None]:
    """Settings whose program fits settings.budget_bytes, and what that took; without a budget as they are.

    The planner computes cheap activations twice, or makes one update of several calls (`plan/budget.py`).
    Raises BudgetError, naming the nearest scheme that fits, where nothing does.
    """
    from trainlet.plan.budget import fit_budget

    if settings.budget_bytes is None:
        return settings, None
    graph = graph_of(model)
    try:
        return fit_budget(settings, lambda s: plan(graph, s, for_board=for_board))
    except BudgetError as error:
        least = replace(settings, batch=1, accumulate=True, arena_target_bytes=0)
        raise BudgetError(f"{error} {_nearest(graph, least, settings.budget_bytes, for_board)}") from None


def _nearest(model: str | Path | Graph, settings: Settings, budget_bytes: int, for_board: bool) -> str:
    """A sentence: the nearest scheme that fits, or what the least one needs, and for what."""
    from trainlet.plan.over_budget import peak
    from trainlet.scheme.shrink import first_fitting, smaller_schemes

    graph, _ = prepare(model, settings)
    planned: dict[str, Program] = {}

    def ram_bytes(scheme: UpdateScheme) -> int:
        smaller = replace(settings, scheme=scheme, budget_bytes=None)
        planned[scheme.name] = _plan_any(model, smaller, lambda name, graph: None, for_board)
        return planned[scheme.name].ram_bytes

    smaller = smaller_schemes(resolve_scheme(settings.scheme, graph), graph)
    if not smaller:
        return "It trains the head alone: take a smaller network or input, or raise the budget."
    found, needed = first_fitting(smaller, ram_bytes, budget_bytes)
    if found is not None:
        return f"The nearest scheme that fits: --scheme {found.name} ({needed:,} bytes)."
    least = smaller[-1].name
    return (
        f"Not even --scheme {least} fits, it needs {needed:,} bytes. {peak(planned[least])} "
        "Take a smaller network or input, or raise the budget."
    )


def plan_report(program: Program) -> dict[str, Any]:
    """`plan --json`: bytes by memory, the lower bound, what lowered it, work, what is alive at the peak."""
    main = program.main
    b = program.bytes
    return {
        "model": program.name,
        "scheme": program.module.selection.name,
        "master": program.module.optimizer.master,
        "batch": main.graph.inputs[0].shape[0],
        "ram_bytes": {k: b[k] for k in ("arena", "state", "scratch")} | {"total": program.ram_bytes},
        "input": {"where": program.sample, "caller_bytes": program.sample_bytes},
        "flash_bytes": b["flash"],
        "lower_bound_bytes": max(f.lower_bound_bytes for f in program.functions.values()),
        "saved_bytes": program.saved_bytes,
        "macs": main.macs(),
        "peak_live": [{"name": r.name, "bytes": r.bytes} for r in main.peak_live()],
        "functions": {
            name: {
                "arena_bytes": f.peak_bytes,
                "lower_bound_bytes": f.lower_bound_bytes,
                "steps": len(f.graph.nodes),
            }
            for name, f in program.functions.items()
        },
    }


def emit(
    model: str | Path | Graph,
    settings: Settings,
    output: str | Path,
    watch: Watch = lambda name, graph: None,
    board: str | Path | None = None,
    format: str = "c",  # noqa: A002  (the option's name)
) -> Path:
    """Write the C sources of a training program into the folder `output`.

    format: one of package.FORMATS. board: a name or a .toml file; then its faster kernels are taken, and a
    program that does not fit its memories raises BudgetError.
    """
    from trainlet.package import write_package

    program = plan(model, settings, watch, for_board=board is not None)
    origin = checkpoint_meta(program.name, settings, program.module.selection)
    try:
        return write_package(program, Path(output), format, board, origin)
    except BudgetError as error:
        from trainlet.device.board import board as find_board

        assert board is not None
        part = find_board(board)
        room = part.ram.budget_bytes - part.stack_bytes
        if program.ram_bytes <= room:
            raise
        raise BudgetError(f"{error} {_nearest(model, settings, room, for_board=True)}") from None


def build(model: str | Path | Graph, settings: Settings, thorough: bool = True) -> HostProgram:
    """Planned, emitted, compiled for this machine, loaded.

    thorough: False where nobody asks for its memory: the same results, planned in less time, with
    somewhat more RAM.
    """
    from trainlet.backends.c99 import write_host_sources
    from trainlet.runtime.host import HostProgram
    from trainlet.runtime.toolchain import compiler

    compiler()  # without one, fail before planning
    program = plan(model, settings, thorough=thorough)
    origin = checkpoint_meta(program.name, settings, program.module.selection)
    with TemporaryDirectory(prefix="trainlet-") as folder:
        return HostProgram(write_host_sources(program, Path(folder), origin))
