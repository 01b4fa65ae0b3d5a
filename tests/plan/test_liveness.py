"""Live ranges of small graphs, written out by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from tests.train.random_networks import Training, trainings
from trainlet.ir import Graph
from trainlet.ir.text import parse_graph
from trainlet.passes import run_passes
from trainlet.plan.liveness import LiveRange, arena_ranges, live_bytes, lower_bound


def ranges(text: str) -> dict[str, tuple[int, int, int]]:
    graph = parse_graph(text, shapes_only=True)
    return {r.name: (r.bytes, r.start, r.end) for r in arena_ranges(graph)}


def test_value_lives_from_its_producer_to_its_last_reader() -> None:
    found = ranges(
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x)
          m: u1[1,4] = Clip(x)
          b: f32[1,4] = Sigmoid(a)
          c: f32[1,4] = Add(a, b)
          return c
        }""".replace("m: u1[1,4] = Clip(x)", "k: f32[1,4], m: u1[1,4] = Clip(x)")
    )
    assert found == {
        "x": (16, -1, 1),
        "a": (16, 0, 3),
        "k": (16, 1, 1),
        "m": (1, 1, 1),
        "b": (16, 2, 3),
        "c": (16, 3, 4),
    }


def test_view_keeps_its_operand_alive_and_takes_no_memory() -> None:
    found = ranges(
        """graph g(x: f32[1,4]) {
          v: f32[4] = Reshape(x) {shape=(4,)}
          a: f32[1,4] = Tanh(x)
          b: f32[1,4] = Add(a, v)
          return b
        }"""
    )
    assert found == {"x": (16, -1, 2), "a": (16, 1, 2), "b": (16, 2, 3)}


def test_result_in_place_extends_its_operand() -> None:
    found = ranges(
        "graph g(x: f32[1,4]) { a: f32[1,4] = Tanh(x) {inplace=0} b: f32[1,4] = Tanh(a) return b }"
    )
    assert found == {"x": (16, -1, 1), "b": (16, 1, 2)}


def test_constants_states_and_arguments_take_no_arena() -> None:
    found = ranges(
        """graph g(x: f32[1,4], lr: f32[1], factor: f32[1]) {
          state b: f32[4]
          d_b: f32[4] = BiasGrad(x)
          b.next: f32[4] = Update(d_b, b, lr, _, _, _, _, _, factor)
          return
          update b <- b.next
        }"""
    )
    assert found == {"x": (16, -1, 0), "d_b": (16, 0, 1)}


def test_input_that_nobody_reads_still_needs_its_place() -> None:
    assert ranges("graph g(x: f32[1,4], z: s8[3]) { a: f32[1,4] = Tanh(x) return a }")["z"] == (3, -1, -1)


@given(trainings())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_lower_bound_is_the_largest_sum_over_all_steps(t: Training) -> None:
    for function in t.module.functions.values():
        graph: Graph = run_passes(function)
        found: list[LiveRange] = arena_ranges(graph)
        steps = range(-1, len(graph.nodes) + 1)
        sums = [sum(r.bytes for r in found if r.start <= at <= r.end) for at in steps]
        assert live_bytes(found, len(graph.nodes)) == sums and lower_bound(graph) == max(sums)
        assert int(np.argmax(sums)) >= 0
