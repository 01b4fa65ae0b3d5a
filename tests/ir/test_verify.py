"""Each rule of the IR, broken once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainlet.errors import GraphError
from trainlet.ir import Graph, GraphBuilder, Tensor, Value, verify


def legal() -> Graph:
    """loss and new = w - tanh(x w), with w a state."""
    b = GraphBuilder("g")
    x = b.input("x", "f32", (1, 2))
    w = b.parameter("w", np.ones((3, 2)))
    y = b.add("Gemm", [x, w, b.constant("b", np.zeros(3))], name="y", source="net:/fc")
    d = b.add("ConvWeightGrad", [x, b.add("Tanh", [y], name="t")], {"kernel": ()}, name="d")
    b.updates["w"] = b.add("Sub", [w, d], name="w.new")
    return b.build([y])


def broken(rule: str) -> Graph:
    g = legal()
    gemm, tanh, grad, sub = g.nodes
    stranger = Value("stranger", "f32", (1, 3))
    match rule:
        case "undefined operand":
            return replace(g, nodes=(gemm, replace(tanh, inputs=(stranger,)), grad, sub))
        case "use before definition":
            return replace(g, nodes=(tanh, gemm, grad, sub))
        case "own result as operand":
            return replace(g, nodes=(gemm, replace(tanh, inputs=tanh.outputs), grad, sub))
        case "defined twice":
            return replace(g, nodes=(gemm, gemm, tanh, grad, sub))
        case "input named as a state":
            return replace(g, inputs=(*g.inputs, Value("w", "f32", (3, 2))))
        case "operand of another type":
            return replace(
                g, nodes=(gemm, replace(tanh, inputs=(replace(gemm.output, dtype="s8"),)), grad, sub)
            )
        case "result of another shape":
            other = replace(gemm.output, shape=(1, 4))
            return replace(g, nodes=(replace(gemm, outputs=(other,)),), outputs=(other,), updates={})
        case "unknown op":
            return replace(g, nodes=(gemm, replace(tanh, op="Cosh"), grad, sub))
        case "unknown attribute":
            return replace(g, nodes=(gemm, replace(tanh, attrs={"alpha": 1}), grad, sub))
        case "too many operands":
            return replace(g, nodes=(gemm, replace(tanh, inputs=(gemm.output,) * 2), grad, sub))
        case "undefined output":
            return replace(g, outputs=(stranger,))
        case "update of no state":
            return replace(g, updates={"b": g.updates["w"]})
        case "update of another type":
            return replace(g, updates={"w": gemm.output})
        case "undefined update":
            return replace(g, updates={"w": stranger})
        case "data of another shape":
            return replace(g, constants={"b": Tensor(g.constants["b"].value, np.zeros(4, np.float32))})
    raise AssertionError(rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("undefined operand", "g: Tanh -> t read stranger before it is defined"),
        ("use before definition", "Tanh -> t read y before it is defined"),
        ("own result as operand", "Tanh -> t read t before it is defined"),
        ("defined twice", "value y is defined twice"),
        ("input named as a state", "value w is defined twice"),
        ("operand of another type", "Tanh -> t read Value.*s8.*defined as Value.*f32"),
        ("result of another shape", r"Gemm -> y is f32\[1, 4\], its op gives f32\[1, 3\]"),
        ("unknown op", "Cosh at Cosh -> t: no such op"),
        ("unknown attribute", "Tanh at Tanh -> t: unknown attribute alpha"),
        ("too many operands", "Tanh at Tanh -> t: takes 1 to 1 operands, got 2"),
        ("undefined output", "the graph's results read stranger"),
        ("update of no state", "update of b by w.new changes its type"),
        ("update of another type", "update of w by y changes its type"),
        ("undefined update", "the graph's results read stranger"),
        ("data of another shape", r"data of b has shape \(4,\)"),
    ],
)
def test_a_broken_rule_is_named(rule: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        verify(broken(rule))


def test_a_legal_graph_is_returned_itself() -> None:
    graph = legal()
    assert verify(graph) is graph


def test_errors_name_the_layer_of_the_user() -> None:
    b = GraphBuilder("g")
    x = b.input("x", "f32", (1, 2))
    with pytest.raises(GraphError, match=r"Gemm at net\.onnx:/fc: weight \(3, 4\) takes 4 input channels"):
        b.add("Gemm", [x, b.constant("w", np.zeros((3, 4)))], source="net.onnx:/fc")
