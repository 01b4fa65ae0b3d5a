"""Chains become one op where nothing else reads what is between."""

from __future__ import annotations

import pytest

from tests.passes.texts import assert_becomes, assert_stays
from trainlet.passes.fuse import fuse


def test_convolution_and_requantization_become_one_with_the_mask() -> None:
    head = """graph g(x: s8[1,2,2,4] q(0.5, 3)) {
      const w: s8[3,1,1,4]
      const b: s32[3]
      const s: f32[3]
      const c: u16[1] = [2]
      state t: f32[3,1,1,1]
    """
    assert_becomes(
        fuse,
        f"""{head}
          acc: s32[1,2,2,3] = ConvInteger(x, w, t, c) {{strides=(1, 1)}} @"net:/conv"
          y: s8[1,2,2,3] q(0.25, -1), m: u1[1,2,2,3] = Requantize(acc, b, s) @"net:/conv"
          return y, m
        }}""",
        f"""{head}
          y: s8[1,2,2,3] q(0.25, -1), m: u1[1,2,2,3] =
            QLinearConv(x, w, b, s, t, c) {{strides=(1, 1)}} @"net:/conv"
          return y, m
        }}""",
    )


def test_sum_that_something_else_reads_is_not_fused_away() -> None:
    assert_stays(
        fuse,
        """graph g(x: s8[1,2,2,4] q(0.5, 3)) {
          const w: s8[3,1,1,4]
          const b: s32[3]
          const s: f32[3]
          acc: s32[1,2,2,3] = ConvInteger(x, w)
          y: s8[1,2,2,3] q(0.25, -1) = Requantize(acc, b, s)
          return y, acc
        }""",
    )


def test_sum_with_two_readers_is_computed_once() -> None:
    assert_stays(
        fuse,
        """graph g(x: s8[1,2,2,4] q(0.5, 3)) {
          const w: s8[3,1,1,4]
          const b: s32[3]
          const s: f32[3]
          acc: s32[1,2,2,3] = ConvInteger(x, w)
          y: s8[1,2,2,3] q(0.25, -1) = Requantize(acc, b, s)
          z: s8[1,2,2,3] q(0.75, 9) = Requantize(acc, b, s)
          return y, z
        }""",
    )


@pytest.mark.parametrize("op, shape", [("Conv", "1,1,4"), ("Gemm", "4")])
def test_clip_moves_into_the_layer_with_its_mask(op: str, shape: str) -> None:
    head = f"graph g(x: f32[1,2,2,4]) {{ const w: f32[3,{shape}]"
    assert_becomes(
        fuse,
        f"""{head}
          a: f32[1,2,2,3] = {op}(x, w)
          y: f32[1,2,2,3], m: u1[1,2,2,3] = Clip(a) {{lo=0.0, hi=6.0}}
          return y, m
        }}""",
        f"{head} y: f32[1,2,2,3], m: u1[1,2,2,3] = {op}(x, w) {{lo=0.0, hi=6.0}} return y, m }}",
    )


def test_second_clip_stays_behind_the_first() -> None:
    assert_becomes(
        fuse,
        """graph g(x: f32[1,4]) {
          const w: f32[3,4]
          a: f32[1,3] = Gemm(x, w)
          b: f32[1,3] = Clip(a) {lo=0.0}
          y: f32[1,3] = Clip(b) {hi=6.0}
          return y
        }""",
        """graph g(x: f32[1,4]) {
          const w: f32[3,4]
          b: f32[1,3] = Gemm(x, w) {lo=0.0}
          y: f32[1,3] = Clip(b) {hi=6.0}
          return y
        }""",
    )


def test_weight_gradient_and_update_become_one() -> None:
    head = """graph g(x: s8[1,2,2,4] q(0.5, 3), dy: f32[1,2,2,3], lr: f32[1]) {
      const qas: f32[3]
      state w: s8[3,1,1,4]
      state f: s8[3,1,1,4]
      state rng: u32[2] = [0, 0]
    """
    tail = """
      return
      update w <- w.next
      update f <- f.next
    }"""
    results = "w.next: s8[3,1,1,4], f.next: s8[3,1,1,4]"
    assert_becomes(
        fuse,
        f"""{head}
          d_w: f32[3,1,1,4] = ConvWeightGrad(x, dy) {{kernel=(1, 1)}} @"net:/conv"
          {results} = Update(d_w, w, lr, qas, f, _, _, rng) {{master="residual", stream=4}} @"net:/conv"
          {tail}""",
        f"""{head}
          {results} = ConvWeightGradUpdate(x, dy, _, w, lr, qas, f, _, _, rng)
            {{kernel=(1, 1), master="residual", stream=4}} @"net:/conv"
          {tail}""",
    )


def test_bias_gradient_and_accumulation_become_one() -> None:
    head = "graph g(dy: f32[1,2,2,3]) { state sum: f32[3]"
    tail = "return update sum <- sum.next }"
    assert_becomes(
        fuse,
        f"""{head}
          d_b: f32[3] = BiasGrad(dy)
          sum.next: f32[3] = Update(d_b, sum) {{rule="accumulate"}}
          {tail}""",
        f'{head} sum.next: f32[3] = BiasGradUpdate(dy, sum) {{rule="accumulate"}} {tail}',
    )


def test_gradient_that_something_else_reads_is_not_fused_away() -> None:
    assert_stays(
        fuse,
        """graph g(dy: f32[1,2,2,3], lr: f32[1]) {
          state b: f32[3]
          d_b: f32[3] = BiasGrad(dy)
          b.next: f32[3] = Update(d_b, b, lr)
          return d_b
          update b <- b.next
        }""",
    )


@pytest.mark.parametrize("operands", ["d_a, other", "other, d_a"])
def test_input_gradient_is_accumulated_onto_the_other_path(operands: str) -> None:
    head = "graph g(dy: f32[1,2,2,3], z: f32[1,2,2,4]) { const w: f32[3,1,1,4]"
    other = "other: f32[1,2,2,4] = Tanh(z)"
    assert_becomes(
        fuse,
        f"""{head} {other}
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {{x_shape=(1, 2, 2, 4)}}
          d_x: f32[1,2,2,4] = Add({operands})
          return d_x
        }}""",
        f"""{head} {other}
          d_x: f32[1,2,2,4] = ConvInputGrad(dy, w, other) {{x_shape=(1, 2, 2, 4)}}
          return d_x
        }}""",
    )


def test_of_two_input_gradients_the_later_takes_the_earlier() -> None:
    head = "graph g(dy: f32[1,2,2,3]) { const w: f32[3,1,1,4] const v: f32[3,1,1,4]"
    shape = "{x_shape=(1, 2, 2, 4)}"
    assert_becomes(
        fuse,
        f"""{head}
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {shape}
          d_b: f32[1,2,2,4] = ConvInputGrad(dy, v) {shape}
          d_x: f32[1,2,2,4] = Add(d_a, d_b)
          return d_x
        }}""",
        f"""{head}
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {shape}
          d_x: f32[1,2,2,4] = ConvInputGrad(dy, v, d_a) {shape}
          return d_x
        }}""",
    )


def test_broadcast_sum_is_not_an_addend() -> None:
    assert_stays(
        fuse,
        """graph g(dy: f32[1,2,2,3], z: f32[4]) {
          const w: f32[3,1,1,4]
          other: f32[4] = Tanh(z)
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {x_shape=(1, 2, 2, 4)}
          d_x: f32[1,2,2,4] = Add(d_a, other)
          return d_x
        }""",
    )


def test_gradient_with_another_reader_is_no_addend() -> None:
    assert_stays(
        fuse,
        """graph g(dy: f32[1,2,2,3], z: f32[1,2,2,4]) {
          const w: f32[3,1,1,4]
          other: f32[1,2,2,4] = Tanh(z)
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {x_shape=(1, 2, 2, 4)}
          d_x: f32[1,2,2,4] = Add(d_a, other)
          d_b: f32[4] = BiasGrad(d_a)
          return d_x, d_b
        }""",
    )


def test_gradient_that_is_also_an_output_is_no_addend() -> None:
    assert_stays(
        fuse,
        """graph g(dy: f32[1,2,2,3], z: f32[1,2,2,4]) {
          const w: f32[3,1,1,4]
          other: f32[1,2,2,4] = Tanh(z)
          d_a: f32[1,2,2,4] = ConvInputGrad(dy, w) {x_shape=(1, 2, 2, 4)}
          d_x: f32[1,2,2,4] = Add(d_a, other)
          return d_x, d_a
        }""",
    )
