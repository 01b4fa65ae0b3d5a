"""Streaming by rows: the same numbers, fewer bytes, the same work."""

import dataclasses

import numpy as np
import pytest

from tests.host.programs import Net, samples
from trainlet.api import Settings, plan, prepare
from trainlet.backends.c99 import scratch_bytes, write_sources
from trainlet.ir import interpret
from trainlet.ir.ops import OPS
from trainlet.ir.text import parse_graph, print_graph
from trainlet.passes import PASSES, run_passes
from trainlet.passes.stream import stream_rows
from trainlet.plan.liveness import lower_bound
from trainlet.plan.program import plan as plan_module
from trainlet.quantize import quantize
from trainlet.runtime.host import HostProgram
from trainlet.train import Optimizer, derive

WITHOUT = [p for p in PASSES if p != "stream-rows"]


def deep(stride, kernel, seed=0):
    """A stem and three inverted residuals on wide maps, then a small tail: the front sets the peak."""
    n = Net("deep", (33, 29, 3), seed)
    x = n.conv(n.x, 8, 3, 2)
    for s in (1, stride, 1):
        y = n.conv(n.conv(n.conv(x, 24), 24, kernel, s, groups=24), 8, act="none")
        x = n.b.add("Add", [x, y], name=f"{y.name}.sum") if s == 1 else y
    x = n.conv(x, 12, 3, 2)
    calibration = np.random.default_rng(1).normal(0, 1, (16, 33, 29, 3)).astype(np.float32)
    return quantize(n.head(n.conv(x, 16), 4), calibration)


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


@pytest.mark.parametrize(
    "old, new",
    [
        ("QLinearConv(x, w, b, s)", "QLinearConv(x, w, b, s) {w_zero=3}"),
        ("QLinearConv(x, w, b, s)", "QLinearConv(x, w, b, s2) {lo=-1}"),
        ("QLinearConv(x, w, b, s)", "QLinearConv(x, w, b, s2)"),
    ],
)
def test_arithmetic_that_a_stream_does_not_hold_is_left_alone(old, new):
    text = HALVES.replace("const s: f32[8]", "const s: f32[8] const s2: s32[2,8]").replace(old, new)
    graph = parse_graph(text, shapes_only=True)
    assert [n.op for n in stream_rows(graph).nodes] == ["QLinearConv", "QLinearConv"]
