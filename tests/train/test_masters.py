"""How an int8 weight keeps a step smaller than one: nearest, stochastic, residual, fp32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlet.ir import GraphBuilder, Value, interpret
from trainlet.ir.graph import Graph

SHAPE = (8, 8)


def updating(w: np.ndarray, master: str, stream: int = 0) -> Graph:
    """A graph that subtracts its input dw (rate 1) from the state w."""
    b = GraphBuilder("update")
    dw = b.input("dw", "f32", w.shape)
    states: list[Value | None] = [b.parameter("w", w, "f32" if w.dtype.kind == "f" else None)]
    residual = master == "residual"
    fraction = b.parameter("fraction", np.zeros(w.shape, np.int8)) if residual else None
    rng = b.parameter("rng", np.array([0, 0], np.uint32)) if master in ("residual", "stochastic") else None
    one = b.constant("one", np.ones(1, np.float32))
    operands = [dw, *states, one, None, fraction, None, None, rng]
    names = ["w.next", "fraction.next"][: 1 + residual]
    node = b.add_node(
        "Update", operands, {"master": master, "stream": stream}, names=names, outputs=len(names)
    )
    b.updates |= dict(zip(("w", "fraction"), node.outputs))
    return b.build([])


def moved(graph: Graph, step: float | np.ndarray, state: dict[str, np.ndarray] | None = None):
    shape = graph.inputs[0].shape
    return dict(interpret(graph, {"dw": np.broadcast_to(np.float32(step), shape)}, state).state)


def value(state: dict[str, np.ndarray]) -> np.ndarray:
    """The weight that a state stands for."""
    fraction = state.get("fraction")
    return state["w"].astype(np.float64) + (0 if fraction is None else fraction / 256)


WEIGHTS = np.arange(-32, 32, dtype=np.int8).reshape(SHAPE)


@pytest.mark.parametrize("step, expected", [(0.4, 0), (0.6, -1), (-0.6, 1), (1.0, -1), (3.2, -3)])
def test_nearest_rounds_each_step_and_loses_small_ones(step: float, expected: int) -> None:
    assert (moved(updating(WEIGHTS, "nearest"), step)["w"] == WEIGHTS + expected).all()


def test_nearest_breaks_ties_to_the_even_weight() -> None:
    after = moved(updating(WEIGHTS, "nearest"), 0.5)["w"]
    assert (after % 2 == 0).all() and (np.abs(WEIGHTS - 0.5 - after) == 0.5).all()


@pytest.mark.parametrize("step", [0.001, 0.1, -0.25, 0.5, 1.75, -3.9])
@pytest.mark.parametrize("master", ["stochastic", "residual"])
def test_random_rounding_has_no_bias(master: str, step: float) -> None:
    graph, unit = updating(WEIGHTS, master), 1.0 if master == "stochastic" else 1 / 256
    seeds = range(400)
    changes = [value(moved(graph, step, {"rng": np.array([s, 0])})) - WEIGHTS for s in seeds]
    error = np.mean(changes) + step
    assert abs(error) < 4 * unit * 0.5 / np.sqrt(len(seeds) * WEIGHTS.size)
    assert np.abs(np.array(changes) + step).max() <= unit  # never more than one unit away


@pytest.mark.parametrize("master", ["stochastic", "residual"])
def test_whole_steps_are_exact(master: str) -> None:
    assert np.array_equal(value(moved(updating(WEIGHTS, master), 2.0)), WEIGHTS - 2.0)


def test_residual_remembers_steps_that_nearest_loses() -> None:
    residual, nearest = updating(WEIGHTS, "residual"), updating(WEIGHTS, "nearest")
    kept = lost = None
    for i in range(64):
        rng = {"rng": np.array([5, i])}
        kept = moved(residual, 1 / 32, {**(kept or {}), **rng})
        lost = moved(nearest, 1 / 32, lost)
    assert np.array_equal(value(kept), WEIGHTS - 2.0)  # 1/32 is 8 / 256: nothing is rounded
    assert np.array_equal(lost["w"], WEIGHTS)


def test_residual_weight_is_the_nearest_integer_of_what_it_stands_for() -> None:
    state = moved(updating(WEIGHTS, "residual"), np.linspace(-3, 3, 64).reshape(SHAPE))
    assert np.abs(state["fraction"] / 256).max() <= 0.5
    assert np.array_equal(state["w"], np.floor(value(state) + 0.5))


@given(st.sampled_from(["nearest", "stochastic", "residual"]), st.floats(-(2.0**100), 2.0**100, width=32))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_steps_of_any_size_saturate(master: str, step: float) -> None:
    after = value(moved(updating(WEIGHTS, master), step))
    expected = np.clip(WEIGHTS - np.float64(step), -128, 127 + (127 / 256 if master == "residual" else 0))
    assert np.abs(after - expected).max() <= 1


@pytest.mark.parametrize("master", ["nearest", "stochastic", "residual"])
def test_bias_saturates_at_32_bits(master: str) -> None:
    bias = np.array([2**31 - 2, -(2**31) + 1, 7], np.int32)
    up, down = (moved(updating(bias, master), s)["w"] for s in (-1e6, 1e6))
    assert up[0] == 2**31 - 1 and down[1] == -(2**31)
    assert up[2] == 1_000_007 and down[2] == -999_993


@pytest.mark.parametrize("master", ["nearest", "stochastic", "residual"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradient_that_is_no_number_moves_nothing_out_of_range(master: str, bad: float) -> None:
    after = moved(updating(WEIGHTS, master), bad)["w"]
    expected = WEIGHTS if np.isnan(bad) else np.full(SHAPE, -128 if bad > 0 else 127)
    assert np.array_equal(after, expected)


def test_fp32_master_is_never_clamped() -> None:
    assert (moved(updating(WEIGHTS.astype(np.float32), "fp32"), -200.25)["w"] == WEIGHTS + 200.25).all()


def test_streams_and_steps_draw_different_numbers() -> None:
    draws = [
        moved(updating(WEIGHTS, "stochastic", stream), 0.5, {"rng": np.array([1, step])})["w"].tobytes()
        for stream in (0, 1)
        for step in (0, 1)
    ]
    assert len(set(draws)) == 4


def test_same_seed_draws_the_same_numbers() -> None:
    graph = updating(WEIGHTS, "stochastic")
    assert np.array_equal(moved(graph, 0.5)["w"], moved(graph, 0.5)["w"])
