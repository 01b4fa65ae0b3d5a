"""The fifteen published schemes: planned quickly, close to the lower bound, nothing overwritten."""

from __future__ import annotations

import time
from functools import cache

import pytest

from tests.plan.memory import planned, walk
from tests.shared_files import shared
from trainlet.api import Settings
from trainlet.api import plan as api_plan
from trainlet.frontends.archive import load_archive
from trainlet.ir import Graph
from trainlet.plan.arena import place
from trainlet.plan.program import Program, plan
from trainlet.scheme import PUBLISHED, resolve_scheme, select
from trainlet.train import Optimizer, derive

pytestmark = pytest.mark.shared


@cache
def network(name: str) -> Graph:
    return load_archive(shared(f"reference/models/{name}.json"))


def program(scheme: str, master: str = "fp32", accumulate: bool = False) -> Program:
    graph = network(scheme.split(":")[0])
    selection = select(resolve_scheme(scheme, graph), graph)
    return plan(derive(graph, selection, Optimizer(master=master), accumulate=accumulate), lambda node: 0)


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_arena_is_within_a_hundredth_of_the_lower_bound(scheme: str) -> None:
    for accumulate in (False, True):
        for function in program(scheme, "residual", accumulate).functions.values():
            assert function.peak_bytes <= 1.01 * function.lower_bound_bytes
            walk(function.graph, planned(function))


# Planned arena at batch 1, stochastic master, ten classes: the image in it, and the image by rows.
ARENA_BYTES = {
    "mcunet-5fps:49kb": (77_360, 39_440),
    "mcunet-5fps:99kb": (77_360, 49_708),
    "mbv2-w0.35:99kb": (72_752, 42_164),
    "proxyless-w0.3:98kb": (78_640, 38_952),
}


@pytest.mark.parametrize("scheme", ARENA_BYTES)
def test_arena_of_the_published_schemes(scheme: str) -> None:
    for where, expected in zip(("arena", "rows"), ARENA_BYTES[scheme], strict=True):
        settings = Settings(scheme=scheme, master="stochastic", classes=10, input=where)
        found = api_plan(network(scheme.split(":")[0]), settings, for_board=True)
        assert found.bytes["arena"] <= expected
        assert found.bytes["arena"] <= 1.04 * found.main.lower_bound_bytes
        for function in found.functions.values():
            walk(function.graph, planned(function))


def test_no_scheme_takes_long_to_place() -> None:
    functions = [f for s in PUBLISHED for f in program(s).functions.values()]
    started = time.process_time()
    for function in functions:
        place(function.ranges)
    assert time.process_time() - started < 0.3 * len(functions)


@pytest.mark.parametrize("scheme", ["mcunet-5fps:99kb", "proxyless-w0.3:148kb"])
def test_no_gradient_of_a_trained_tensor_is_ever_held(scheme: str) -> None:
    found = program(scheme)
    arena = {r.name for r in found.main.ranges}
    assert not arena & {f"d_{p.name}" for p in found.module.parameters}
    assert not arena & {f"d_{p.name}.trained" for p in found.module.parameters}


@pytest.mark.parametrize("scheme", ["mcunet-5fps:49kb", "mbv2-w0.35:138kb"])
def test_prefix_is_everything_before_the_first_trained_tensor(scheme: str) -> None:
    main = program(scheme).main
    first = next(
        i for i, n in enumerate(main.graph.nodes) if any(v.name in main.graph.state for v in n.operands())
    )
    assert main.prefix_steps == first > 10
    assert all(not v.name.startswith("d_") for v in main.boundary)
