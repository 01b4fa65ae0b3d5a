"""Recomputation drops what only waits for its gradient, keeps every bit, and reads no state that moved on."""

from __future__ import annotations

import numpy as np

from tests.host.programs import NETWORKS
from tests.passes.texts import after, assert_stays
from trainlet.api import Settings, derive
from trainlet.ir import interpret
from trainlet.ir.text import parse_graph
from trainlet.passes import run_passes
from trainlet.passes.inplace import reuse_in_place
from trainlet.passes.recompute import MAC_SHARE, recompute, recomputed
from trainlet.plan.liveness import lower_bound

WAITS = """graph g(x: f32[1,8], big: f32[1,64]) {
  t: f32[1,64] = Concat(x, x, x, x, x, x, x, x) {axis=1}
  s: f32[1,64] = Tanh(t)
  r: f32[1,64] = Sigmoid(big)
  q: f32[1,64] = Mul(r, s)
  u: f32[1,64] = Mul(q, t)
  return u
}"""


def test_a_value_that_waits_is_computed_again_before_its_late_reader() -> None:
    graph = parse_graph(WAITS, shapes_only=True)
    changed = recompute(graph)
    assert [n.output.name for n in recomputed(changed)] == ["t.again"]
    late = next(n for n in changed.nodes if n.output.name == "u")
    assert [v.name for v in late.operands()] == ["q", "t.again"]
    assert lower_bound(reuse_in_place(changed)) < lower_bound(reuse_in_place(graph))


def test_nothing_is_computed_twice_where_the_peak_would_stay() -> None:
    assert_stays(
        recompute,
        """graph g(x: f32[1,8]) {
          t: f32[1,8] = Tanh(x)
          s: f32[1,8] = Sigmoid(t)
          return s
        }""",
    )


def test_a_target_that_is_met_already_changes_nothing() -> None:
    graph = parse_graph(WAITS, shapes_only=True)
    assert recompute(graph, lower_bound(reuse_in_place(graph))) == graph


def test_a_training_step_gets_smaller_and_keeps_its_bits() -> None:
    graph = NETWORKS["residual"]()
    step = derive(graph, Settings("full", batch=2)).functions["step"]
    plain, small = run_passes(step), run_passes(step, arena_target_bytes=0)
    assert lower_bound(small) < 0.85 * lower_bound(plain)
    rng = np.random.default_rng(3)
    inputs = {
        "x": rng.normal(size=(2, *graph.inputs[0].shape[1:])).astype(np.float32),
        "label": np.array([1, 4], np.int32),
        "lr": np.array([0.1], np.float32),
    }
    before, now = (interpret(g, inputs, real=np.float32) for g in (plain, small))
    assert all(np.array_equal(a, b) for a, b in zip(before.outputs, now.outputs))
    assert all(np.array_equal(before.state[k], now.state[k]) for k in before.state)


def test_the_work_done_twice_is_bounded() -> None:
    from trainlet.ir.ops import OPS

    step = derive(NETWORKS["residual"](), Settings("full")).functions["step"]
    small = run_passes(step, arena_target_bytes=0)
    again = sum(OPS[n.op].macs(n) for n in recomputed(small))
    assert 0 < again <= MAC_SHARE * sum(OPS[n.op].macs(n) for n in run_passes(step).nodes)


def test_what_reads_a_trained_tensor_is_not_computed_after_its_update() -> None:
    text = """graph g(x: f32[1,4], dy: f32[1,64], lr: f32[1]) {
      state w: f32[64,4]
      y: f32[1,64] = Gemm(x, w)
      a: f32[1,64] = Tanh(dy)
      b: f32[1,64] = Sigmoid(a)
      d_w: f32[64,4] = ConvWeightGrad(x, dy) {kernel=()}
      w.next: f32[64,4] = Update(d_w, w, lr)
      z: f32[1,64] = Mul(b, y)
      return z
      update w <- w.next
    }"""
    assert "y.again" not in after(recompute, text)
