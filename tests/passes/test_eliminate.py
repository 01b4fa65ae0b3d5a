"""What neither an output nor an update needs is not computed."""

from __future__ import annotations

from tests.passes.texts import assert_becomes, assert_stays
from trainlet.passes.eliminate import eliminate_dead


def test_chain_that_nobody_reads_goes_with_its_constants() -> None:
    assert_becomes(
        eliminate_dead,
        """graph g(x: f32[1,4]) {
          const w: f32[3,4]
          const lost/w: f32[3,4]
          y: f32[1,3] = Gemm(x, w)
          lost: f32[1,3] = Gemm(x, lost/w)
          worse: f32[1,3] = Tanh(lost)
          return y
        }""",
        """graph g(x: f32[1,4]) {
          const w: f32[3,4]
          y: f32[1,3] = Gemm(x, w)
          return y
        }""",
    )


def test_mask_that_nobody_reads_is_not_made() -> None:
    assert_becomes(
        eliminate_dead,
        "graph g(x: f32[1,4]) { y: f32[1,4], m: u1[1,4] = Clip(x) {lo=0.0} return y }",
        "graph g(x: f32[1,4]) { y: f32[1,4] = Clip(x) {lo=0.0} return y }",
    )


def test_mask_alone_keeps_its_node() -> None:
    assert_stays(
        eliminate_dead,
        """graph g(x: f32[1,4]) {
          y: f32[1,4], m: u1[1,4] = Clip(x) {lo=0.0}
          d: f32[1,4] = MaskGrad(x, m)
          return d
        }""",
    )


def test_what_an_update_needs_is_kept() -> None:
    assert_stays(
        eliminate_dead,
        """graph g(x: f32[1,4], lr: f32[1]) {
          state b: f32[4]
          d_b: f32[4] = BiasGrad(x)
          b.next: f32[4] = Update(d_b, b, lr)
          return
          update b <- b.next
        }""",
    )


def test_scales_of_a_weight_that_is_read_are_kept() -> None:
    assert_stays(
        eliminate_dead,
        """graph g(x: s8[1,2,2,4] q(0.5, 3)) {
          const scales: f32[2]
          const w: s8[2,1,1,4] q(@scales, 0, axis=0)
          y: s32[1,2,2,2] = ConvInteger(x, w)
          return y
        }""",
    )
