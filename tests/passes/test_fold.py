"""What is constant is computed now; overlays and rounding move into the layers that read the weight."""

from __future__ import annotations

from tests.passes.texts import after, assert_becomes, assert_stays
from trainlet.passes.fold import fold_constants, fold_overlays


def test_chain_of_constants_becomes_one_constant() -> None:
    assert_becomes(
        fold_constants,
        """graph g(x: f32[2]) {
          const a: f32[2] = [1.5, -2.0]
          const b: f32[2] = [0.5, 4.0]
          sum: f32[2] = Add(a, b)
          half: f32[2] = Scale(sum) {factor=0.5}
          y: f32[2] = Mul(x, half)
          return y
        }""",
        """graph g(x: f32[2]) {
          const half: f32[2] = [1.0, 1.0]
          y: f32[2] = Mul(x, half)
          return y
        }""",
    )


def test_dequantized_constant_has_its_real_values() -> None:
    text = """graph g(x: f32[2]) {
      const q: s8[2] q(0.25, -4) = [-4, 4]
      real: f32[2] = DequantizeLinear(q)
      y: f32[2] = Add(x, real)
      return y
    }"""
    assert "const real: f32[2] = [0.0, 2.0]" in after(fold_constants, text)


def test_every_result_of_a_folded_node_becomes_a_constant() -> None:
    text = """graph g(x: f32[3]) {
      const c: f32[3] = [-1.0, 0.5, 9.0]
      clipped: f32[3], mask: u1[3] = Clip(c) {lo=0.0, hi=6.0}
      d: f32[3] = MaskGrad(x, mask)
      y: f32[3] = Add(d, clipped)
      return y
    }"""
    folded = after(fold_constants, text)
    assert "const mask: u1[3] = [0, 1, 0]" in folded and "const clipped: f32[3] = [0.0, 0.5, 6.0]" in folded


def test_state_is_not_constant() -> None:
    assert_stays(
        fold_constants,
        """graph g(lr: f32[1]) {
          state w: f32[2]
          y: f32[2] = Tanh(w)
          return y
        }""",
    )


OVERLAID = """graph g(x: f32[1,2,2,4], dy: f32[1,2,2,3]) {
  const w: f32[3,1,1,4]
  const w.channels: u16[2] = [1, 3]
  state w.trained: f32[3,1,1,2]
  w.overlaid: f32[3,1,1,4] = OverlayChannels(w, w.trained, w.channels)
  y: f32[1,2,2,3] = Conv(x, w.overlaid)
  d_x: f32[1,2,2,4] = ConvInputGrad(dy, w.overlaid) {x_shape=(1, 2, 2, 4)}
  return y, d_x
}"""


def test_overlay_moves_into_its_readers() -> None:
    assert_becomes(
        fold_overlays,
        OVERLAID,
        """graph g(x: f32[1,2,2,4], dy: f32[1,2,2,3]) {
          const w: f32[3,1,1,4]
          const w.channels: u16[2] = [1, 3]
          state w.trained: f32[3,1,1,2]
          y: f32[1,2,2,3] = Conv(x, w, _, w.trained, w.channels)
          d_x: f32[1,2,2,4] = ConvInputGrad(dy, w, _, w.trained, w.channels) {x_shape=(1, 2, 2, 4)}
          return y, d_x
        }""",
    )


def test_overlay_that_something_else_reads_stays_for_it() -> None:
    text = OVERLAID.replace("return y, d_x", "t: f32[3,1,1,4] = Tanh(w.overlaid) return y, d_x, t")
    folded = after(fold_overlays, text)
    assert "Conv(x, w, _, w.trained, w.channels)" in folded and "Tanh(w.overlaid)" in folded


def test_overlay_that_is_an_output_stays() -> None:
    text = OVERLAID.replace("return y, d_x", "return y, d_x, w.overlaid")
    assert "OverlayChannels(w, w.trained, w.channels)" in after(fold_overlays, text)


def test_rounded_master_and_overlay_of_an_integer_weight_fold_together() -> None:
    assert_becomes(
        fold_overlays,
        """graph g(x: s8[1,2,2,4] q(0.5, 3), dy: f32[1,2,2,3]) {
          const w: s8[3,1,1,4]
          const c: u16[2] = [0, 2]
          state w.trained: f32[3,1,1,2]
          w.rounded: s16[3,1,1,2] = RoundMaster(w.trained)
          w.overlaid: s16[3,1,1,4] = OverlayChannels(w, w.rounded, c)
          acc: s32[1,2,2,3] = ConvInteger(x, w.overlaid)
          d_x: f32[1,2,2,4] = ConvInputGrad(dy, w.overlaid) {integer=True, x_shape=(1, 2, 2, 4)}
          return acc, d_x
        }""",
        """graph g(x: s8[1,2,2,4] q(0.5, 3), dy: f32[1,2,2,3]) {
          const w: s8[3,1,1,4]
          const c: u16[2] = [0, 2]
          state w.trained: f32[3,1,1,2]
          acc: s32[1,2,2,3] = ConvInteger(x, w, w.trained, c)
          d_x: f32[1,2,2,4] = ConvInputGrad(dy, w, _, w.trained, c) {integer=True, x_shape=(1, 2, 2, 4)}
          return acc, d_x
        }""",
    )


def test_whole_integer_weight_is_read_as_its_float_master() -> None:
    assert_becomes(
        fold_overlays,
        """graph g(x: s8[1,2,2,4]) {
          state w: f32[3,1,1,4]
          w.rounded: s16[3,1,1,4] = RoundMaster(w)
          acc: s32[1,2,2,3] = ConvInteger(x, w.rounded)
          return acc
        }""",
        """graph g(x: s8[1,2,2,4]) {
          state w: f32[3,1,1,4]
          acc: s32[1,2,2,3] = ConvInteger(x, w)
          return acc
        }""",
    )
