"""The gradient through a hidden layer, a group of its channels at a time: it never exists whole.

A chain of gradient nodes, from the convolution that reads the hidden layer to the one that makes it, possibly
with a depthwise convolution between, is one op. Its nodes stand in the attribute `parts`; `parts` gives them
back as ordinary ones. All work channel by channel, except the last input gradient, which sums over channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from trainlet.ir.graph import Attr, Attrs, Node, Value
from trainlet.ir.ops.gradients import input_grad_fits, input_grad_window
from trainlet.ir.ops.table import OPS, REQUIRED, Call, Result, check, infer_node, op

ADDEND = 1  # the operand that dx is added to, and may overwrite
CLAMPS = ("RequantizeGrad", "MaskGrad")
UPDATES = ("BiasGradUpdate", "ConvWeightGradUpdate")


def encode(nodes: Sequence[Node], group: int) -> tuple[list[Value | None], dict[str, Attr]]:
    """Operands and attributes of the HiddenGrad of `nodes`, in an order in which they may run.

    In `parts` an operand is its index among the whole op's, -1 - i for the result of part i, or null.
    """
    addend = next((n.input(2) for n in nodes if n.op == "ConvInputGrad" and n.input(2) is not None), None)
    operands: list[Value | None] = [nodes[0].inputs[0], addend]
    made = {n.output.name: -1 - i for i, n in enumerate(nodes)}

    def index(value: Value | None) -> int | None:
        if value is None or value.name in made:
            return None if value is None else made[value.name]
        if value not in operands:
            operands.append(value)
        return operands.index(value)

    text = []
    for n in nodes:
        attrs = {k: v for k, v in sorted(n.attrs.items()) if v != OPS[n.op].attrs.get(k, REQUIRED)}
        names = [v.name for v in n.outputs]
        text.append([n.op, [index(v) for v in n.inputs], attrs, names, n.source])
    return operands, {"group": group, "parts": json.dumps(text, separators=(",", ":"))}


def parts(inputs: Sequence[Value | None], attrs: Attrs) -> list[Node]:
    """The chain as ordinary nodes."""
    nodes: list[Node] = []
    for op_name, indices, part_attrs, names, source in json.loads(str(attrs["parts"])):
        check(all(i is None or -len(nodes) <= i < len(inputs) for i in indices), "no such operand")
        operands = tuple(None if i is None else nodes[-1 - i].output if i < 0 else inputs[i] for i in indices)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in part_attrs.items()}
        full, results = infer_node(op_name, operands, given, source, len(names))
        values = tuple(Value(name, *r) for name, r in zip(names, results, strict=True))
        nodes.append(Node(op_name, operands, values, MappingProxyType(full), source))
    return nodes


@dataclass(frozen=True)
class Chain:
    """The nodes of a HiddenGrad by what they do. `reader` reads the hidden layer, `maker` makes it.

    inner: the clamp behind the reader; outer: behind the depthwise convolution, if there is one.
    """

    nodes: Sequence[Node]

    @property
    def reader(self) -> Node:
        return self.nodes[0]

    @property
    def depthwise(self) -> Node | None:
        """The depthwise input gradient."""
        return self._find(self.nodes[1:], ("ConvInputGrad",), depthwise=True)

    @property
    def depthwise_update(self) -> Node | None:
        return self._find(self.nodes, ("ConvWeightGradUpdate",), depthwise=True)

    @property
    def maker(self) -> Node | None:
        """The input gradient of the layer that makes the hidden one, where dx is wanted."""
        return self._find(self.nodes[1:], ("ConvInputGrad",), depthwise=False)

    @property
    def maker_update(self) -> Node | None:
        return self._find(self.nodes, ("ConvWeightGradUpdate",), depthwise=False)

    def clamp(self, outer: bool) -> Node | None:
        return self._find(self._level(outer), CLAMPS)

    def bias_update(self, outer: bool) -> Node | None:
        return self._find(self._level(outer), ("BiasGradUpdate",))

    def _level(self, outer: bool) -> Sequence[Node]:
        at = len(self.nodes) if self.depthwise is None else list(self.nodes).index(self.depthwise)
        return self.nodes[at:] if outer else self.nodes[:at]

    def _find(self, among: Sequence[Node], ops: Sequence[str], depthwise: bool | None = None) -> Node | None:
        found = (n for n in among if n.op in ops and (depthwise is None or _is_depthwise(n) == depthwise))
        return next(found, None)

    @property
    def overwrites(self) -> bool:
        """Whether the depthwise dx takes over the memory of its dy: not where a weight gradient reads it."""
        if self.depthwise is None or self.depthwise_update is not None:
            return False
        return input_grad_fits(self.depthwise, 0)

    def leaving(self) -> list[Value]:
        """Results that are read outside: dx, if the chain goes that far, then every updated tensor."""
        updates = [v for n in self.nodes if n.op in UPDATES for v in n.outputs]
        return updates if self.maker is None else [self.maker.output, *updates]

    def work_elements(self, group: int) -> int:
        """Floats of one group's gradients: behind the reader, and before the depthwise convolution."""
        hidden, depthwise = self.reader.output, self.depthwise
        channels = hidden.shape[-1]
        before = 0 if depthwise is None or self.overwrites else depthwise.output.size // channels
        return min(group, channels) * (hidden.size // channels + before)


def _is_depthwise(node: Node) -> bool:
    return bool(node.attrs["depthwise"]) if node.op in UPDATES else input_grad_window(node).depthwise


def _infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    chain, group = Chain(parts(inputs, attrs)), int(attrs["group"])
    check(group > 0, f"groups of {group} channels")
    return [*((v.dtype, v.shape) for v in chain.leaving()), ("f32", (chain.work_elements(group),))]


def _macs(node: Node) -> int:
    return sum(OPS[n.op].macs(n) for n in parts(node.inputs, node.attrs))


@op(
    "HiddenGrad",
    _infer,
    (2, 64),
    {"group": REQUIRED, "parts": REQUIRED},
    macs=_macs,
    inplace={0: (ADDEND,)},
)
def hidden_grad(call: Call) -> tuple[np.ndarray, ...]:
    """dy f32, addend of dx f32?, then what the parts read -> dx f32?, updated tensors, work (undefined)."""
    chain = Chain(parts(call.node.inputs, call.attrs))
    given = zip(call.node.inputs, call.inputs, strict=True)
    env: dict[str, Any] = {v.name: a for v, a in given if v is not None and a is not None}
    for n in chain.nodes:
        args = tuple(None if v is None else env[v.name] for v in n.inputs)
        results = OPS[n.op].run(Call(n, args, call.real, call.scales))
        results = results if isinstance(results, tuple) else (results,)
        env |= {v.name: r for v, r in zip(n.outputs, results, strict=False)}
    work = np.zeros(call.node.outputs[-1].shape, call.real)
    return (*(env[v.name] for v in chain.leaving()), work)
