"""Whole programs: every byte in its place, budgets, and the prefix that can be skipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.plan.memory import Memory, planned, walk
from tests.train.networks import Net, case
from tests.train.random_networks import Training, trainings
from trainlet.errors import BudgetError
from trainlet.ir import Graph, Node, interpret
from trainlet.ir.text import parse_graph
from trainlet.plan.arena import ALIGNMENT
from trainlet.plan.program import Function, plan

QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def scratch(node: Node) -> int:
    return 64 if "Conv" in node.op else 0


@given(trainings())
@QUICK
def test_no_operand_is_overwritten_before_it_is_read(t: Training) -> None:
    for function in plan(t.module, scratch).functions.values():
        walk(function.graph, planned(function))


@given(trainings())
@QUICK
def test_every_arena_tensor_lies_inside_the_arena(t: Training) -> None:
    program = plan(t.module, scratch)
    for function in program.functions.values():
        for v in function.graph.values():
            at = function.locations[v.name]
            assert at.memory in ("flash", "arena", "state", "argument") and at.offset % ALIGNMENT == 0
            assert (
                at.memory != "arena" or at.offset + v.bytes <= function.peak_bytes <= program.bytes["arena"]
            )
            assert at.memory != "state" or at.offset + v.bytes <= program.bytes["state"]
        assert function.peak_bytes >= function.lower_bound_bytes


@given(trainings())
@settings(QUICK, max_examples=20)
def test_plan_is_deterministic(t: Training) -> None:
    first, second = plan(t.module, scratch), plan(t.module, scratch)
    assert first.bytes == second.bytes and first.state_offsets == second.state_offsets
    for name, function in first.functions.items():
        assert function.locations == second.functions[name].locations


def resumed(function: Function) -> Graph:
    """The function without its prefix: the boundary's values are inputs."""
    graph = function.graph
    kept = [v for v in graph.inputs if v not in function.boundary and v.name != graph.inputs[0].name]
    tail = replace(graph, inputs=(*function.boundary, *kept), nodes=())
    return tail.with_nodes(graph.nodes[function.prefix_steps :])


@given(trainings())
@QUICK
def test_resuming_after_the_prefix_equals_the_whole(t: Training) -> None:
    for function in plan(t.module, scratch).functions.values():
        whole = interpret(function.graph, t.inputs(function.graph))
        tail = resumed(function)
        feeds = {**t.feeds, **{v.name: whole.values[v.name] for v in function.boundary}}
        rest = interpret(tail, {v.name: feeds[v.name] for v in tail.inputs})
        assert all(np.array_equal(a, b) for a, b in zip(whole.outputs, rest.outputs))
        assert all(np.array_equal(whole.state[k], rest.state[k]) for k in whole.state)


@given(trainings())
@QUICK
def test_boundary_is_all_that_must_be_put_back_into_memory(t: Training) -> None:
    for function in plan(t.module, scratch).functions.values():
        graph = function.graph
        first = graph.inputs[0].name if graph.inputs else ""
        alive = {v.name: "" for v in (*function.boundary, *graph.inputs) if v.name != first}
        alive |= {v.name: "" for v in function.boundary}
        walk(graph, planned(function), function.prefix_steps, alive)


def test_prefix_of_a_frozen_network_ends_at_its_first_trained_layer() -> None:
    net = Net((1, 4))
    y = net.add("Tanh", [net.operand("b", x=net.add("Tanh", [net.operand("a")]))])
    given_case = case(net.build([net.operand("head", 2, y)]))
    biases_of_head = replace(given_case.selection, weights={"head/weight": None}, biases=frozenset())
    function = plan(replace(given_case, selection=biases_of_head).derive(), scratch).main
    assert [n.op for n in function.graph.nodes[: function.prefix_steps]] == ["Gemm", "Tanh", "Gemm", "Tanh"]
    assert [v.name for v in function.boundary] == [y.name]
    assert plan(given_case.derive(), scratch).main.prefix_steps == 0


def test_output_of_the_prefix_belongs_to_its_boundary() -> None:
    net = Net((1, 4))
    module = case(net.build([net.operand("head", 2)])).derive()
    graph = parse_graph(
        """graph net.predict(x: f32[1,4]) {
          state head/weight.trained: f32[2,4]
          a: f32[1,4] = Tanh(x)
          y: f32[1,2] = Gemm(x, head/weight.trained)
          return y, a
        }""",
        shapes_only=True,
    )
    function = plan(replace(module, functions={"predict": graph, "step": graph}), scratch).main
    assert function.prefix_steps == 1 and {v.name for v in function.boundary} == {"a", "x"}


def test_functions_share_one_arena_and_one_state() -> None:
    net = Net((1, 4))
    program = plan(case(net.build([net.operand("head", 2)])).derive(), scratch)
    assert program.bytes["arena"] == max(f.peak_bytes for f in program.functions.values())
    assert program.bytes["state"] == 4 * (8 + 2)
    assert program.bytes["scratch"] == 64  # of the weight gradient
    assert program.ram_bytes == program.bytes["arena"] + 40 + 64
    for function in program.functions.values():
        assert (
            function.locations["head/weight.trained"].offset == program.state_offsets["head/weight.trained"]
        )


def test_flash_holds_constants_and_factory_values_once() -> None:
    net = Net((1, 4))
    program = plan(case(net.build([net.operand("head", 2, net.operand("body"))])).derive(), scratch)
    assert program.bytes["flash"] == 4 * (16 + 4 + 8 + 2)
    frozen = Net((1, 4))
    graph = frozen.build([frozen.operand("head", 2, frozen.operand("body"))])
    selection = replace(case(graph).selection, weights={"head/weight": (1, 2)}, biases=frozenset())
    module = replace(case(graph), selection=selection).derive()
    assert plan(module, scratch).bytes["flash"] == 4 * (16 + 4 + 8 + 2) + 2 * 2  # and the channels


def test_budget_error_names_what_is_alive_at_the_peak() -> None:
    net = Net((1, 64, 64))
    hidden = net.add("Tanh", [net.operand("wide", 32)])
    given_case = case(net.scored(net.operand("head", 2, hidden)))
    fits = plan(given_case.derive(), scratch)
    assert plan(given_case.derive(), scratch, fits.ram_bytes).ram_bytes == fits.ram_bytes
    with pytest.raises(BudgetError) as error:
        plan(given_case.derive(), scratch, fits.ram_bytes - 1)
    peak = max(fits.functions.values(), key=lambda f: f.peak_bytes).peak_live()
    for part in (
        f"{fits.ram_bytes:,}",
        f"{fits.ram_bytes - 1:,}",
        f"{peak[0].name} {peak[0].bytes:,}",
        "net",
    ):
        assert part in str(error.value)


def test_peak_step_is_where_most_is_alive() -> None:
    net = Net((1, 8, 8))
    function = plan(case(net.scored(net.operand("wide", 32))).derive(), scratch).main
    live = sum(r.bytes for r in function.peak_live())
    assert live == function.lower_bound_bytes
    at = function.peak_step
    assert all(r.start <= at <= r.end for r in function.peak_live())


def test_memory_checker_finds_an_overwritten_operand() -> None:
    graph = parse_graph("graph g(x: f32[4]) { a: f32[4] = Tanh(x) y: f32[4] = Add(a, x) return y }")
    places = {"x": ("arena", 0), "a": ("arena", 8), "y": ("arena", 32)}
    with pytest.raises(AssertionError, match="a overwrites x"):
        walk(graph, places)
    with pytest.raises(AssertionError, match="return: y was overwritten|y overwrites a"):
        walk(graph, {**places, "a": ("arena", 16), "y": ("arena", 28)})
    memory = Memory({"x": ("arena", 0), "a": ("arena", 12)})
    memory.write(graph.inputs[0], "x")
    memory.write(graph.nodes[0].output, "a")
    assert set(memory.held) == {"a"}
