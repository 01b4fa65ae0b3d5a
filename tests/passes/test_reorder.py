"""Updates come after every reader of the old value, and the order never needs more memory than the given."""

from __future__ import annotations

from hypothesis import given, settings

from tests.passes.texts import after, assert_stays
from tests.train.random_networks import Training, trainings
from trainlet.ir.text import parse_graph, print_graph
from trainlet.passes import run_passes
from trainlet.passes.inplace import reuse_in_place
from trainlet.passes.reorder import reorder
from trainlet.plan.liveness import lower_bound

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def order(text: str) -> list[str]:
    return [n.output.name for n in parse_graph(after(reorder, text), shapes_only=True).nodes]


def test_update_moves_behind_the_last_reader_of_the_old_weight() -> None:
    found = order(
        """graph g(x: f32[1,4], dy: f32[1,3], lr: f32[1]) {
          state w: f32[3,4]
          d_w: f32[3,4] = ConvWeightGrad(x, dy) {kernel=()}
          w.next: f32[3,4] = Update(d_w, w, lr)
          d_x: f32[1,4] = ConvInputGrad(dy, w) {x_shape=(1, 4)}
          return d_x
          update w <- w.next
        }"""
    )
    assert found.index("w.next") > found.index("d_x")


def test_update_runs_as_soon_as_its_gradient_is_known() -> None:
    found = order(
        """graph g(x: f32[1,64], lr: f32[1]) {
          state a: f32[64]
          state b: f32[64]
          d_a: f32[64] = BiasGrad(x)
          t: f32[1,64] = Tanh(x)
          d_b: f32[64] = BiasGrad(t)
          a.next: f32[64] = Update(d_a, a, lr)
          b.next: f32[64] = Update(d_b, b, lr)
          return
          update a <- a.next
          update b <- b.next
        }"""
    )
    assert found.index("a.next") < found.index("d_b")


def test_order_that_cannot_improve_stays() -> None:
    assert_stays(
        reorder,
        """graph g(x: f32[1,4]) {
          a: f32[1,4] = Tanh(x)
          b: f32[1,4] = Sigmoid(a)
          c: f32[1,4] = Add(a, b)
          return c
        }""",
    )


@given(trainings())
@QUICK
def test_peak_never_rises_above_that_of_the_given_order(t: Training) -> None:
    for graph in t.module.functions.values():
        given_order = run_passes(graph, ["fold-constants", "fold-overlays", "eliminate-dead", "fuse"])
        assert lower_bound(reuse_in_place(reorder(given_order))) <= lower_bound(reuse_in_place(given_order))


@given(trainings())
@QUICK
def test_every_order_computes_operands_first_and_reads_states_before_their_update(t: Training) -> None:
    for graph in t.module.functions.values():
        ordered = run_passes(graph, ["fold-overlays", "fuse", "reorder"])
        known = {*ordered.constants, *ordered.state, *(v.name for v in ordered.inputs)}
        states = {v.name: name for name, v in ordered.updates.items()}
        gone: set[str] = set()
        for node in ordered.nodes:
            assert {v.name for v in node.operands()} <= known
            assert not {v.name for v in node.operands()} & gone, "the state's old value is overwritten"
            known |= {v.name for v in node.outputs}
            gone |= {states[v.name] for v in node.outputs if v.name in states}
        assert print_graph(reorder(ordered)) == print_graph(ordered)
