"""Backward by groups of hidden channels: a gradient that is only passed through never exists whole.

An inverted residual widens its input, so its hidden gradients are the largest tensors of a step. From the
convolution that reads the hidden layer to the one that makes it, everything but the last sum works channel by
channel: the same numbers in the same order come out of a loop over groups of channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops.gradients import input_grad_window
from trainlet.ir.ops.hidden import CLAMPS, Chain, encode, parts
from trainlet.passes.inplace import reuse_in_place
from trainlet.passes.reorder import in_order
from trainlet.plan.liveness import arena_ranges, live_bytes, lower_bound

GROUP = 16  # channels: two bytes of a packed mask, and what the widest kernel computes at once


def group_hidden(graph: Graph) -> Graph:
    """Chains of gradients through a hidden layer become one op each, in the smallest groups.

    `widen_groups` takes back what does not pay, once everything else is in its place.
    """
    kept = {v.name for v in (*graph.outputs, *graph.updates.values())}
    readers = graph.consumers()
    merged: dict[str, Node] = {}  # first result of the chain's last node -> the chain
    gone: set[str] = set()
    for node in graph.nodes:
        chain = [] if node.output.name in gone else _chain(node, readers, kept)
        if not chain or not _pays(Chain(chain)):
            continue
        gone |= {n.output.name for n in chain}
        merged[chain[-1].output.name] = _merge(chain, GROUP)
    nodes = []
    for node in graph.nodes:
        if node.output.name in merged:
            nodes.append(merged[node.output.name])
        elif node.output.name not in gone:
            nodes.append(node)
    return in_order(graph.with_nodes(nodes)) if merged else graph


def _pays(chain: Chain) -> bool:
    """Whether a chain in the smallest groups needs less than its ordinary nodes, overwriting what they can.

    Not where the hidden layer is no wider than what it is computed from: then dy and dx are as large as the
    hidden gradients, and groups come on top.
    """
    dy, hidden, depthwise, maker = chain.reader.inputs[0], chain.reader.output, chain.depthwise, chain.maker
    assert dy is not None
    whole = [dy.bytes + hidden.bytes]
    if depthwise is not None:
        whole.append((0 if chain.overwrites else hidden.bytes) + depthwise.output.bytes)
        hidden = depthwise.output
    dx = maker.output.bytes if maker is not None and maker.input(2) is None else 0
    return dy.bytes + dx + 4 * chain.work_elements(GROUP) < max(*whole, hidden.bytes + dx)


def _merge(nodes: Sequence[Node], group: int) -> Node:
    operands, attrs = encode(nodes, group)
    chain = Chain(nodes)
    work = Value(f"{chain.reader.output.name}.group", "f32", (chain.work_elements(group),))
    results = (*chain.leaving(), work)
    return Node("HiddenGrad", tuple(operands), results, MappingProxyType(attrs), chain.reader.source)


def _chain(head: Node, readers: dict[str, list[Node]], kept: set[str]) -> list[Node]:
    """The nodes from the input gradient `head` to the layer that makes its input; none if it does not fit."""
    if head.op != "ConvInputGrad" or head.input(2) is not None or head.output.name in kept:
        return []
    if input_grad_window(head).groups != 1:
        return []
    chain, gradient = [head], head.output
    for _ in range(2):  # behind the head, and behind a depthwise convolution
        step = _level(gradient, readers, kept)
        if step is None:
            return []
        found, following = step
        chain += found
        if following is None or not input_grad_window(following).depthwise:
            return chain if len(chain) > 1 else []
        gradient = following.output
    return []


def _level(
    gradient: Value, readers: dict[str, list[Node]], kept: set[str]
) -> tuple[list[Node], Node | None] | None:
    """What reads a hidden gradient: clamp, updates, the next input gradient. None if anything else does."""
    found: list[Node] = []
    reading = readers.get(gradient.name, [])
    if len(reading) == 1 and reading[0].op in CLAMPS and reading[0].inputs[0] == gradient:
        found.append(reading[0])
        gradient = reading[0].output
        reading = readers.get(gradient.name, [])
    if gradient.name in kept or not reading:
        return None
    grads = [n for n in reading if n.op == "ConvInputGrad" and n.inputs[0] == gradient]
    biases = [n for n in reading if n.op == "BiasGradUpdate" and n.inputs[0] == gradient]
    weights = [n for n in reading if n.op == "ConvWeightGradUpdate" and n.inputs[1] == gradient]
    if len(reading) != len(grads) + len(biases) + len(weights):
        return None
    if max(len(grads), len(biases), len(weights)) > 1 or not all(map(_sliceable, (*grads, *weights))):
        return None
    # The input gradient reads the weights that the update overwrites.
    return [*found, *biases, *grads, *weights], grads[0] if grads else None


def _sliceable(node: Node) -> bool:
    """Whether a gradient can be computed for some output channels of its layer at a time."""
    if node.op == "ConvWeightGradUpdate":
        return node.input(2) is None and (bool(node.attrs["depthwise"]) or node.attrs["groups"] == 1)
    s = input_grad_window(node)
    if s.depthwise:
        return node.input(2) is None and node.input(3) is None
    return s.groups == 1 and s.kh * s.kw == 1  # with more taps the outputs would no longer be summed in order


def widen_groups(graph: Graph) -> Graph:
    """The fewest groups that do not raise the peak; where one suffices, the chain is ordinary nodes again."""
    peak = lower_bound(reuse_in_place(graph))
    for node in [n for n in graph.nodes if n.op == "HiddenGrad"]:
        options = (_replace(graph, node, new) for new in _wider(graph, node, peak))
        graph = next((g for g in options if lower_bound(reuse_in_place(g)) <= peak), graph)
    return graph


def _replace(graph: Graph, old: Node, new: list[Node]) -> Graph:
    return graph.with_nodes([n for node in graph.nodes for n in (new if node is old else [node])])


def _wider(graph: Graph, node: Node, peak: int) -> Iterable[list[Node]]:
    """What could stand for a chain: its ordinary nodes, then groups as wide as its step has room for."""
    chain = parts(node.inputs, node.attrs)
    channels, work = chain[0].output.shape[-1], node.outputs[-1]
    alive = live_bytes(arena_ranges(reuse_in_place(graph)), len(graph.nodes))
    room = peak - alive[graph.nodes.index(node) + 1] + work.bytes
    most = room // (4 * Chain(chain).work_elements(1)) // GROUP * GROUP
    yield chain
    if most >= channels:
        yield [_merge(chain, channels)]
    if most > GROUP:
        count = math.ceil(channels / most)
        even = math.ceil(channels / count / GROUP) * GROUP  # as many groups, of nearly one size
        yield [_merge(chain, even)]
