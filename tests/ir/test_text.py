from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.random_graphs import graphs
from trainlet.errors import GraphError
from trainlet.ir import Graph, GraphBuilder, Quant, interpret
from trainlet.ir.text import (
    load_graph,
    parse_graph,
    parse_program,
    print_graph,
    print_program,
    save_graph,
)

TINY = """\
graph tiny(x: s8[1,4,4,8] q(0.0078, 0), label: s32[1]) {
  const conv/weight: s8[16,3,3,8] q(@conv/scale, 0, axis=0)
  const conv/scale: f32[16]
  const b: s32[16]
  const rate: f32[1] = [0.1]
  state head/weight: f32[10,64]
  y: s8[1,2,2,16] q(0.02, -128), m: u1[1,2,2,16] = QLinearConv(x, conv/weight, b, conv/scale) \
{pads=(1, 1, 1, 1), strides=(2, 2)} @"model.onnx:/conv1"
  flat: s8[1,64] = Reshape(y) {shape=(1, 64)}
  h: f32[1,64] = DequantizeLinear(flat)
  logits: f32[1,10] = Gemm(h, head/weight)
  loss: f32[1] = SoftmaxCrossEntropy(logits, label)
  d: f32[1,10] = SoftmaxCrossEntropyGrad(logits, label)
  head/weight.new: f32[10,64] = ConvWeightGradUpdate(h, d, _, head/weight, rate) {kernel=()}
  return loss, logits
  update head/weight <- head/weight.new
}
"""


def contents(graph: Graph) -> dict[str, np.ndarray]:
    return {name: t.data for name, t in {**graph.constants, **graph.state}.items()}


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_a_printed_graph_parses_back(graph: Graph) -> None:
    assert parse_graph(print_graph(graph), contents(graph)) == graph


@given(graphs(), graphs())
@settings(max_examples=10, deadline=None)
def test_functions_of_a_program_print_one_after_another(first: Graph, second: Graph) -> None:
    text = print_program([first, second])
    shapes = parse_program(text, shapes_only=True)
    assert print_program(shapes).count("\n") == text.count("\n")
    assert [g.nodes for g in shapes] == [first.nodes, second.nodes]


@given(st.floats(width=32, allow_nan=False))
def test_inline_floats_are_exact(x: float) -> None:
    b = GraphBuilder("g")
    c = b.constant("c", [x, -x, np.inf, -np.inf], "f32")
    graph = b.build([b.add("Reshape", [c], {"shape": (2, 2)})])
    assert parse_graph(print_graph(graph)) == graph


def test_the_readme_example_prints_as_it_was_written() -> None:
    assert print_graph(parse_graph(TINY, shapes_only=True)) == TINY


def test_comments_blank_lines_and_layout_do_not_matter() -> None:
    text = TINY.replace("\n", "   # why\n\n").replace(", ", " ,\n ")
    assert parse_graph(text, shapes_only=True) == parse_graph(TINY, shapes_only=True)


def test_default_attributes_are_left_out_and_come_back() -> None:
    node = parse_graph(TINY, shapes_only=True).nodes[0]
    assert node.attrs["groups"] == 1
    assert "groups" not in TINY


@pytest.mark.parametrize("name", ["_", "const", "return", "ünï", "a b", "x\ny", 'q"', "\u2028"])
def test_names_the_syntax_cannot_hold_are_quoted(name: str) -> None:
    b = GraphBuilder("g")
    x = b.input("x", "f32", (1,))
    y = b.add("Tanh", [x], source=name)
    renamed = type(y)(name, y.dtype, y.shape)
    node = b.nodes[0]
    graph = Graph(name, (x,), (renamed,), (type(node)(node.op, node.inputs, (renamed,), node.attrs, name),))
    assert parse_graph(print_graph(graph)) == graph


def test_missing_contents_name_the_first_tensor() -> None:
    with pytest.raises(GraphError, match="no contents for conv/weight"):
        parse_graph(TINY)


def test_contents_of_another_shape_are_refused() -> None:
    with pytest.raises(GraphError, match=r"conv/weight are int8\[2\], the text says s8\[16, 3, 3, 8\]"):
        parse_graph(TINY, {"conv/weight": np.zeros(2, np.int8)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph tiny", "grap tiny", "line 1: expected 'graph', found grap"),
        ("x: s8", "x s8", "line 1: expected ':', found s8"),
        ("x: s8", "x: s9", r"line 1: expected an element type \(f32"),
        ("[0.1]", "[0.1, 2]", "line 5: expected 1 elements of rate, found 2"),
        ("[0.1]", "[zero]", "line 5: expected a number or ']', found zero"),
        ("Gemm(h,", "Gemm(hh,", "line 10: expected the name of a value defined above, found hh"),
        ("Gemm(h,", "Gem(h,", "line 10: Gem: no such op"),
        ("logits: f32[1,10]", "logits: f32[1,11]", r"line 10: expected logits to be f32\[1, 10\]"),
        ("{pads=", "{padding=", "line 7: .*unknown attribute padding"),
        ("flat: s8", "x: s8", "line 8: value x is defined twice"),
        ("return loss", "ret loss", "line 14: expected ':', found loss"),
        ("}\n", "", "line 16: expected '}', found the end"),
        ("<-", "->", "line 15: expected '<-', found -"),
        ('@"model', "@model", "line 7: expected the node's source in quotes"),
        ("(x, conv", "(x; conv", "line 7: expected '\\)', found ;"),
    ],
)
def test_errors_name_the_line_and_what_was_expected(old: str, new: str, message: str) -> None:
    text = TINY.replace(old, new) if old != "}\n" else TINY.removesuffix(old)
    with pytest.raises(GraphError, match=message):
        parse_graph(text, shapes_only=True)


def test_integers_out_of_range_are_refused() -> None:
    with pytest.raises(GraphError, match="line 1: expected elements of c in the range of s8"):
        parse_graph("graph g() { const c: s8[1] = [200] return c }")


def test_a_text_of_two_graphs_is_not_one() -> None:
    with pytest.raises(GraphError, match="holds 2 graphs"):
        parse_graph(TINY + TINY, shapes_only=True)


def test_saved_graphs_load_and_compute_the_same(tmp_path: Path) -> None:
    b = GraphBuilder("net")
    x = b.input("x", "f32", (2, 12))
    w = b.constant("file", np.arange(36.0).reshape(3, 12))
    h = b.add("Gemm", [x, w, b.constant("bias", [1.0, 2.0, 3.0])])
    graph = b.build([b.add("QuantizeLinear", [h], quant=Quant(0.3, -7))])
    text = save_graph(graph, tmp_path / "deep" / "net.v1")
    assert text.name == "net.v1.tl"
    loaded = load_graph(text)
    assert loaded == graph
    sample = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12)}
    assert np.array_equal(interpret(loaded, sample).outputs[0], interpret(graph, sample).outputs[0])


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"none\.tl: no such file"):
        load_graph(tmp_path / "none")
    (tmp_path / "bad.tl").write_text(TINY)
    with pytest.raises(GraphError, match=r"bad\.tl: no contents for conv/weight"):
        load_graph(tmp_path / "bad")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(GraphError, match=r"bad\.npz: damaged"):
        load_graph(tmp_path / "bad")
