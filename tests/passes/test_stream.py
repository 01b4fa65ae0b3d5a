"""Streaming by rows: the same numbers, fewer bytes, the same work."""

import dataclasses
import re

import numpy as np
import pytest

from tests.host.programs import deep, samples
from trainlet.api import Settings, plan, prepare
from trainlet.backends.c99 import scratch_bytes, write_sources
from trainlet.errors import SchemeError
from trainlet.ir import interpret
from trainlet.ir.ops import OPS
from trainlet.ir.ops.stream import stages
from trainlet.ir.text import parse_graph, print_graph
from trainlet.passes import PASSES, run_passes
from trainlet.passes.inplace import reuse_in_place
from trainlet.passes.stream import stream_rows
from trainlet.plan.liveness import lower_bound
from trainlet.plan.program import plan as plan_module
from trainlet.runtime.host import HostProgram
from trainlet.train import Optimizer, derive

WITHOUT = [p for p in PASSES if p != "stream-rows"]


def step_before_streaming(graph):
    graph, selection = prepare(graph, Settings(scheme="last:1"))
    module = derive(graph, selection, Optimizer(master="stochastic"))
    names = list(PASSES)
    return run_passes(module.functions["step"], names[: names.index("stream-rows")])


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5), (1, 7)])
def test_streaming_lowers_the_peak_and_changes_nothing_else(stride, kernel):
    graph = deep(stride, kernel)
    before = step_before_streaming(graph)
    after = stream_rows(before)
    streamed = [n for n in after.nodes if n.op == "StreamRows"]
    assert streamed
    assert lower_bound(after) < 0.75 * lower_bound(before)
    macs = [sum(OPS[n.op].macs(n) for n in g.nodes) for g in (before, after)]
    assert macs[0] == macs[1]
    inputs = {"x": samples(graph, 1), "label": [1], "lr": [0.1]}
    a, b = interpret(before, inputs), interpret(after, inputs)
    assert all(np.array_equal(x, y) for x, y in zip(a.outputs, b.outputs))
    assert all(np.array_equal(a.state[k], b.state[k]) for k in a.state)


def test_a_streamed_graph_prints_and_parses_back():
    after = stream_rows(step_before_streaming(deep(2, 3)))
    data = {k: t.data for k, t in {**after.constants, **after.state}.items()}
    assert parse_graph(print_graph(after), data) == after


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5)])
def test_streamed_c_gives_the_bits_of_layer_by_layer_c(stride, kernel, batch, tmp_path):
    graph = deep(stride, kernel)
    settings = Settings(scheme="last:1", master="stochastic", batch=batch)
    streamed = plan(graph, settings)
    layered = plan_module(streamed.module, scratch_bytes, passes=WITHOUT)
    assert streamed.bytes["arena"] < layered.bytes["arena"]
    hosts = [HostProgram(write_sources(p, tmp_path / n)) for p, n in ((streamed, "s"), (layered, "l"))]
    x = samples(graph, batch)
    y = np.arange(batch, dtype=np.int32)
    for _ in range(3):
        losses = [h.step(x, y, 0.05) for h in hosts]
        assert losses[0] == losses[1]
    assert np.array_equal(hosts[0].region("state"), hosts[1].region("state"))
    assert np.array_equal(*(h.predict(x) for h in hosts))


def test_what_training_needs_is_not_streamed_away():
    """Under a full scheme every activation has a mask or a reader in the backward pass."""
    graph, selection = prepare(deep(1, 3), Settings(scheme="full"))
    module = derive(graph, selection, Optimizer(master="stochastic"))
    step = run_passes(module.functions["step"])
    assert not [n for n in step.nodes if n.op == "StreamRows"]
    assert dataclasses.is_dataclass(step)


HALVES = """graph g(x: s8[1,16,16,2] q(0.5, 3)) {
  const w: s8[8,3,3,2]
  const b: s32[8]
  const s: f32[8]
  const v: s8[2,3,3,8]
  const c: s32[2]
  const t: f32[2]
  wide: s8[1,14,14,8] q(0.25, -1) = QLinearConv(x, w, b, s)
  y: s8[1,12,12,2] q(0.25, -1) = QLinearConv(wide, v, c, t)
  return y
}"""


def test_two_convolutions_stream():
    assert [n.op for n in stream_rows(parse_graph(HALVES, shapes_only=True)).nodes] == ["StreamRows"]


def test_output_between_two_convolutions_is_kept():
    graph = parse_graph(HALVES.replace("return y", "return y, wide"), shapes_only=True)
    assert stream_rows(graph) == graph


def test_an_asymmetric_or_fixed_point_convolution_streams_too():
    text = HALVES.replace("const s: f32[8]", "const s: s32[2,8]").replace(
        "w, b, s)", "w, b, s) {lo=-1, w_zero=3}"
    )
    streamed = stream_rows(parse_graph(text, shapes_only=True)).nodes
    assert [n.op for n in streamed] == ["StreamRows"]
    first = stages(streamed[0].inputs, streamed[0].attrs)[0]
    assert (first.attrs["w_zero"], first.attrs["lo"], first.inputs[3].dtype) == (3, -1, "s32")


@pytest.mark.parametrize("trained", ["w: f32[8,3,3,2]", "b: f32[8]"])
def test_what_is_trained_is_left_alone(trained):
    name = trained[0]
    text = re.sub(rf"const {name}: \S+", f"state {trained}", HALVES) + "\n"
    text = text.replace("return y", f"return y update {name} <- {name}")
    assert "StreamRows" not in [n.op for n in stream_rows(parse_graph(text, shapes_only=True)).nodes]


BLOCK = """graph g(x: s8[1,16,16,4] q(0.5, 3)) {
  const a: s8[4,3,3,4]
  const b: s32[4]
  const s: f32[4]
  const p: s8[32,1,1,4]
  const q: s32[32]
  const t: f32[32]
  const d: s8[32,5,5,1]
  const r: s8[4,1,1,32]
  stem: s8[1,16,16,4] q(0.25, -1) = QLinearConv(x, a, b, s) {pads=(1, 1, 1, 1)}
  wide: s8[1,16,16,32] q(0.25, -1) = QLinearConv(stem, p, q, t)
  deep: s8[1,16,16,32] q(0.25, -1) = QLinearConv(wide, d, q, t) {groups=32, pads=(2, 2, 2, 2)}
  back: s8[1,16,16,4] q(0.25, -1) = QLinearConv(deep, r, b, s)
  sum: s8[1,16,16,4] q(0.3, 2) = QLinearAdd(stem, back)
  y: s8[1,7,7,4] q(0.25, -1) = QLinearConv(sum, a, b, s) {strides=(2, 2)}
  return y
}"""


def test_a_residual_block_streams_inside_a_longer_chain():
    """By rows, so that the line is one chain; the block's input keeps the rows that the sum still needs."""
    graph = parse_graph(BLOCK.replace("q(0.5, 3))", "q(0.5, 3) in rows)"), shapes_only=True)
    (node,) = stream_rows(graph).nodes
    assert [n.op for n in stages(node.inputs, node.attrs)] == [n.op for n in graph.nodes]
    assert node.attrs["by_rows"] and lower_bound(stream_rows(graph)) < 5_000
    # image 3 rows; stem 3, the sum's own and two below; wide 5; deep 1; back 1; sum 3
    kept = [3 * 16 * 4, 3 * 16 * 4, 5 * 16 * 32, 16 * 32, 16 * 4, 3 * 16 * 4]
    assert node.outputs[1].bytes == sum(kept) + 44


def test_work_is_added_only_where_it_lowers_the_peak_of_the_program():
    graph = parse_graph(BLOCK, shapes_only=True)
    enough = lower_bound(reuse_in_place(graph))
    assert stream_rows(graph, enough) == graph
    least = stream_rows(graph)
    assert lower_bound(least) < enough / 3
    half = stream_rows(graph, enough // 2)
    assert lower_bound(least) < lower_bound(half) <= enough // 2


def test_an_image_comes_by_rows_only_to_what_can_take_it():
    text = HALVES.replace("q(0.5, 3))", "q(0.5, 3) in rows)")
    assert stream_rows(parse_graph(text, shapes_only=True)).nodes[0].attrs["by_rows"]
    masked = text.replace(
        "wide: s8[1,14,14,8] q(0.25, -1) =", "wide: s8[1,14,14,8] q(0.25, -1), m: u1[1,14,14,8] ="
    )
    with pytest.raises(SchemeError, match=r"x cannot come by rows: training needs it whole at wide"):
        stream_rows(parse_graph(masked, shapes_only=True))
    pooled = """graph g(x: s8[1,8,8,2] q(0.5, 3) in rows) {
      y: s8[1,1,1,2] q(0.5, 3) = AveragePool(x) {kernel=()} @"net:/pool"
      return y
    }"""
    with pytest.raises(SchemeError, match=r"AveragePool at net:/pool needs it whole; keep it in memory"):
        stream_rows(parse_graph(pooled, shapes_only=True))


def test_a_graph_whose_image_comes_by_rows_prints_and_parses_back():
    graph = stream_rows(parse_graph(BLOCK.replace("q(0.5, 3))", "q(0.5, 3) in rows)"), shapes_only=True))
    data = {k: t.data for k, t in graph.constants.items()}
    assert "x: s8[1,16,16,4] q(0.5, 3) in rows" in print_graph(graph)
    assert parse_graph(print_graph(graph), data) == graph
