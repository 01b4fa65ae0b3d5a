"""A result takes over memory only where nothing reads the old contents any more."""

from __future__ import annotations

from hypothesis import given, settings

from tests.passes.texts import after, assert_becomes, assert_stays
from tests.plan.memory import own_memory, walk
from tests.train.random_networks import Training, trainings
from trainlet.ir.storage import storage_roots
from trainlet.ir.text import parse_graph
from trainlet.passes import run_passes
from trainlet.passes.inplace import reuse_in_place


def test_result_overwrites_an_operand_that_is_dead() -> None:
    assert_becomes(
        reuse_in_place,
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x)
          b: f32[1,4] = Sigmoid(a)
          t: f32[1,4,1] = Reshape(b) {shape=(1, 4, 1)}
          y: f32[1,4,1] = Tanh(t)
          return y
        }""",
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x) {inplace=0}
          b: f32[1,4] = Sigmoid(a) {inplace=0}
          t: f32[1,4,1] = Reshape(b) {shape=(1, 4, 1)}
          y: f32[1,4,1] = Tanh(t) {inplace=0}
          return y
        }""",
    )


def test_operand_that_is_read_later_is_not_overwritten() -> None:
    assert_becomes(
        reuse_in_place,
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x)
          y: f32[1,4] = Add(a, x)
          return y
        }""",
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x)
          y: f32[1,4] = Add(a, x) {inplace=0}
          return y
        }""",
    )


def test_operand_that_is_read_later_through_a_view_is_not_overwritten() -> None:
    assert_becomes(
        reuse_in_place,
        """graph g(x: f32[1,4]) {
          v: f32[4] = Reshape(x) {shape=(4,)}
          a: f32[1,4] = Tanh(x)
          b: f32[1,4] = Add(a, v)
          return b
        }""",
        """graph g(x: f32[1,4]) {
          v: f32[4] = Reshape(x) {shape=(4,)}
          a: f32[1,4] = Tanh(x)
          b: f32[1,4] = Add(a, v) {inplace=0}
          return b
        }""",
    )


def test_value_read_twice_by_one_node_is_not_overwritten() -> None:
    assert_stays(reuse_in_place, "graph g(x: f32[1,4]) { y: f32[1,4] = Mul(x, x) return y }")


def test_view_of_the_overwritten_operand_is_not_the_other_operand() -> None:
    assert_stays(
        reuse_in_place,
        """graph g(x: f32[1,4]) {
          v: f32[4] = Reshape(x) {shape=(4,)}
          y: f32[1,4] = Mul(x, v)
          return y
        }""",
    )


def test_constants_states_and_outputs_are_not_overwritten() -> None:
    assert_stays(
        reuse_in_place,
        """graph g(x: f32[1,4]) {
          const c: f32[4] = [1.0, 2.0, 3.0, 4.0]
          state s: f32[4]
          a: f32[4] = Tanh(c)
          b: f32[4] = Tanh(s)
          d: f32[4] = Tanh(a)
          return a, b, d
        }""",
    )


def test_smaller_broadcast_operand_is_not_overwritten() -> None:
    assert_stays(
        reuse_in_place,
        """graph g(x: f32[4], z: f32[1,4]) {
          y: f32[2,4] = Add(x, z2)
          return y
        }""".replace("z: f32[1,4]", "z2: f32[2,1]"),
    )


DEPTHWISE = """graph g(x: s8[1,8,8,128] q(0.5, 1)) {
  const w: s8[128,3,3,1]
  const b: s32[128]
  const s: f32[128]
  a: s8[1,8,8,128] q(0.5, 1) = QLinearLookup(x, t)
  y: s8[1,8,8,128] q(0.5, 1) = QLinearConv(a, w, b, s) {groups=128, pads=(1, 1, 1, 1)}
  return y
}""".replace("const s:", "const t: s8[256] const s:")


def test_depthwise_convolution_overwrites_its_operand() -> None:
    assert "groups=128, inplace=0" in after(reuse_in_place, DEPTHWISE)


def test_strided_convolution_does_not() -> None:
    smaller = DEPTHWISE.replace("y: s8[1,8,8,", "y: s8[1,4,4,").replace(
        "groups=128,", "groups=128, strides=(2, 2),"
    )
    assert "groups=128, inplace=0" not in after(reuse_in_place, smaller)


def test_update_lies_where_its_state_lies() -> None:
    graph = parse_graph(
        """graph g(x: f32[1,4], lr: f32[1]) {
          state b: f32[4]
          b.next: f32[4] = BiasGradUpdate(x, b, lr)
          return
          update b <- b.next
        }""",
        shapes_only=True,
    )
    assert storage_roots(reuse_in_place(graph))["b.next"] == "b"


@given(trainings())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_two_live_values_never_share_memory(t: Training) -> None:
    for graph in t.module.functions.values():
        final = run_passes(graph)
        walk(final, own_memory(final))
