"""Gradients through hidden layers: which chains become one op, in how many groups, and what stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.passes.texts import assert_stays
from tests.train.random_networks import Training, trainings
from trainlet.ir.ops import OPS
from trainlet.ir.ops.hidden import parts
from trainlet.ir.text import parse_graph, print_graph
from trainlet.passes import run_passes
from trainlet.passes.hidden import group_hidden, widen_groups
from trainlet.passes.inplace import reuse_in_place
from trainlet.plan.liveness import lower_bound

BLOCK = """graph g(dy: f32[1,10,10,8], x: s8[1,10,10,8] q(0.5, 1), m: u1[1,10,10,96],
  n: u1[1,10,10,96], lr: f32[1]) {
  const project: s8[8,1,1,96]
  const depthwise: s8[96,3,3,1]
  const s: f32[96]
  const t: f32[96]
  state bias: f32[96]
  state expand: f32[96,1,1,8]
  a: f32[1,10,10,96] = ConvInputGrad(dy, project) {integer=True, x_shape=(1, 10, 10, 96)}
  b: f32[1,10,10,96] = RequantizeGrad(a, s, m)
  c: f32[1,10,10,96] = ConvInputGrad(b, depthwise)
    {groups=96, integer=True, pads=(1, 1, 1, 1), x_shape=(1, 10, 10, 96)}
  d: f32[1,10,10,96] = RequantizeGrad(c, t, n)
  dx: f32[1,10,10,8] = ConvInputGrad(d, expand) {integer=True, x_shape=(1, 10, 10, 8)}
  bias.next: f32[96] = BiasGradUpdate(b, bias, lr)
  expand.next: f32[96,1,1,8] = ConvWeightGradUpdate(x, d, _, expand, lr) {kernel=(1, 1)}
  return dx
  update bias <- bias.next
  update expand <- expand.next
}"""


def block(*edits: tuple[str, str]):
    text = BLOCK
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse_graph(text, shapes_only=True)


def ops(graph):
    return [n.op for n in graph.nodes]


def test_block_becomes_one_op_that_holds_its_nodes() -> None:
    graph = block()
    (node,) = group_hidden(graph).nodes
    assert [v.name for v in node.outputs] == ["dx", "bias.next", "expand.next", "a.group"]
    assert node.outputs[-1].shape == (16 * 100,)  # the depthwise gradient is computed in place
    assert sorted(parts(node.inputs, node.attrs), key=repr) == sorted(graph.nodes, key=repr)


def test_grouped_graph_prints_and_parses_back() -> None:
    after = group_hidden(block())
    data = {k: t.data for k, t in {**after.constants, **after.state}.items()}
    assert parse_graph(print_graph(after), data) == after


def test_work_is_the_same() -> None:
    macs = [sum(OPS[n.op].macs(n) for n in g.nodes) for g in (block(), group_hidden(block()))]
    assert macs[0] == macs[1] > 0


@pytest.mark.parametrize("hidden", [8, 16, 24])
def test_layer_that_is_hardly_wider_than_its_surroundings_is_left_alone(hidden) -> None:
    graph = parse_graph(BLOCK.replace("96", str(hidden)), shapes_only=True)
    assert ops(group_hidden(graph)) == ops(graph)


@given(trainings())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_groups_never_raise_the_peak(t: Training) -> None:
    before = ["fold-constants", "fold-overlays", "eliminate-dead", "fuse"]
    for graph in t.module.functions.values():
        whole = run_passes(graph, [*before, "reorder"])
        grouped = run_passes(graph, [*before, "group-hidden", "reorder", "widen-groups"])
        assert lower_bound(reuse_in_place(grouped)) <= lower_bound(reuse_in_place(whole))


def test_hidden_gradient_that_something_else_reads_exists_whole() -> None:
    graph = block(("return dx", "return dx, d"))
    assert_stays(group_hidden, print_graph(graph))


@pytest.mark.parametrize(
    "edits",
    [
        # More than one tap: the outputs of a tap would not be summed in one go.
        [
            ("expand: f32[96,1,1,8]", "expand: f32[96,3,3,8]"),
            (
                "integer=True, x_shape=(1, 10, 10, 8)",
                "integer=True, pads=(1, 1, 1, 1), x_shape=(1, 10, 10, 8)",
            ),
            ("expand.next: f32[96,1,1,8]", "expand.next: f32[96,3,3,8]"),
            ("kernel=(1, 1)", "kernel=(3, 3), pads=(1, 1, 1, 1)"),
        ],
        # Some trained channels of a depthwise layer, scattered over the groups.
        [
            ("const s: f32[96]", "const s: f32[96] const k: u16[2] = [3, 9] state w: f32[2,3,3,1]"),
            ("ConvInputGrad(b, depthwise)", "ConvInputGrad(b, depthwise, _, w, k)"),
        ],
    ],
)
def test_what_does_not_go_by_groups_is_left_alone(edits) -> None:
    graph = block(*edits)
    assert ops(group_hidden(graph)) == ops(graph)


def test_chain_without_depthwise_convolution_or_dx() -> None:
    graph = block(
        ("(b, depthwise)\n    {groups=96, integer=True, pads=(1, 1, 1, 1),", "(b, other) {integer=True,"),
        ("const s:", "const other: s8[96,1,1,96] const s:"),
        ("dx: f32[1,10,10,8] = ConvInputGrad(d, expand) {integer=True, x_shape=(1, 10, 10, 8)}", ""),
        ("return dx", "return"),
    )
    # The layer between is dense: its dx is whole, and is the hidden gradient of the next chain in turn.
    assert ops(group_hidden(graph)) == ["HiddenGrad", "RequantizeGrad", "ConvWeightGradUpdate"]


def crowded(graph, elements: int):
    """The graph with steps behind it at which `elements` floats are alive beside its inputs and dx."""
    wide = f"y: f32[1,{elements}] = Pad(z) {{pads=(0, 0, 0, {elements - 1})}}"
    wide += " w: f32[1,1] = ReduceSum(y) {shape=(1, 1)}"
    text = print_graph(graph).replace("return dx", f"{wide} return dx, w")
    return parse_graph(text.replace("lr: f32[1])", "lr: f32[1], z: f32[1,1])"), shapes_only=True)


def test_groups_that_do_not_lower_the_peak_are_taken_back() -> None:
    graph = crowded(block(), 50_000)
    after = widen_groups(group_hidden(graph))
    assert sorted(ops(after)) == sorted(ops(graph))
    assert lower_bound(reuse_in_place(after)) <= lower_bound(reuse_in_place(graph))


@pytest.mark.parametrize(("spare_channels", "group"), [(0, 16), (15, 16), (16, 32), (23, 32)])
def test_groups_are_as_wide_as_the_peak_allows(spare_channels, group) -> None:
    """The block's step in its smallest groups, and another that needs so many channels' gradients more."""
    graph = group_hidden(block())
    behind = lower_bound(reuse_in_place(graph)) - graph.nodes[0].output.bytes  # only dx is still alive there
    graph = crowded(graph, behind // 4 + 100 * spare_channels)
    small = lower_bound(reuse_in_place(graph))
    widened = widen_groups(graph)
    assert lower_bound(reuse_in_place(widened)) <= small
    (node,) = (n for n in widened.nodes if n.op == "HiddenGrad")
    assert node.attrs["group"] == group
