from __future__ import annotations

import numpy as np
import pytest

from trainlet.errors import GraphError
from trainlet.ir import Graph, GraphBuilder, Quant, interpret


def counter() -> Graph:
    """out = x + total; total becomes out."""
    b = GraphBuilder("counter")
    x, total = b.input("x", "f32", (2,)), b.parameter("total", [10.0, 20.0])
    b.updates["total"] = out = b.add("Add", [x, total], name="out")
    return b.build([out])


def test_state_is_carried_from_one_execution_to_the_next() -> None:
    graph, x = counter(), {"x": np.float32([1, 2])}
    first = interpret(graph, x)
    second = interpret(graph, x, first.state)
    assert first.outputs[0].tolist() == [11, 22]
    assert second.state["total"].tolist() == [12, 24]
    assert graph.state["total"].data.tolist() == [10, 20]


def test_a_state_without_an_update_stays() -> None:
    b = GraphBuilder("g")
    x, w = b.input("x", "f32", (1,)), b.parameter("w", [3.0])
    graph = b.build([b.add("Mul", [x, w])])
    assert interpret(graph, {"x": np.ones(1)}).state["w"].tolist() == [3]


def test_every_value_is_kept_by_name() -> None:
    assert set(interpret(counter(), {"x": np.zeros(2)}).values) == {"x", "total", "out"}


def test_floats_are_computed_in_the_type_asked_for() -> None:
    x = {"x": np.array([1e-9, 1.0])}
    assert interpret(counter(), x).outputs[0].dtype == np.float32
    wide = interpret(counter(), x, real=np.float64).outputs[0]
    assert wide.dtype == np.float64
    assert wide[0] == 10 + 1e-9


def test_inputs_that_are_missing_or_of_another_shape_are_named() -> None:
    with pytest.raises(GraphError, match="counter: input x is missing"):
        interpret(counter(), {})
    with pytest.raises(GraphError, match=r"input x is \(3,\), wants \(2,\)"):
        interpret(counter(), {"x": np.zeros(3)})


def test_per_channel_scales_come_from_a_constant() -> None:
    b = GraphBuilder("g")
    s = b.constant("s", [0.5, 0.25])
    w = b.constant("w", np.int8([[1], [2]]), quant=Quant("s", 0, 0))
    graph = b.build([b.add("Reshape", [w], {"shape": (2,)})])
    assert s.name in graph.constants
    assert graph.scales(w).tolist() == [0.5, 0.25]
    with pytest.raises(GraphError, match=r"value .* is not quantized"):
        graph.scales(graph.outputs[0])
