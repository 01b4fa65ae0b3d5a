"""A chain of frozen int8 convolutions as one op: between its stages only a few rows exist at a time.

The stages are encoded in the node: operands x, then weight, bias, scale of each convolution; an add
has none, it adds x. `stages` gives them back as ordinary nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from trainlet.ir.graph import Attr, Attrs, Node, Quant, Value
from trainlet.ir.ops.convolution import node_window
from trainlet.ir.ops.table import OPS, REQUIRED, Call, Result, check, infer_node, op
from trainlet.ir.ops.window import Window

STAGES = 16  # TL_STREAM_STAGES of tl_stream.h
CONV, ADD = 0, 1
_PER_STAGE = 9  # of `geometry`: kind, sh, sw, pt, pl, pb, pr, dh, dw


def encode(nodes: Sequence[Node]) -> tuple[list[Value | None], dict[str, Attr]]:
    """Operands and attributes of the StreamRows of `nodes`, a chain of QLinearConv and QLinearAdd."""
    first = nodes[0].inputs[0]
    operands: list[Value | None] = [first]
    geometry: list[int] = []
    groups: list[int] = []
    scales, zeros = [], []
    for node in nodes:
        quant = node.output.quant
        assert quant is not None and isinstance(quant.scale, float)
        scales.append(quant.scale)
        zeros.append(quant.zero_point)
        if node.op == "QLinearAdd":
            geometry += [ADD, 1, 1, 0, 0, 0, 0, 1, 1]
            groups.append(1)
            continue
        operands += node.inputs[1:4]
        s = node_window(node)
        geometry += [CONV, s.sh, s.sw, s.pt, s.pl, s.pb, s.pr, s.dh, s.dw]
        groups.append(s.groups)
    attrs: dict[str, Attr] = {
        "geometry": tuple(geometry),
        "groups": tuple(groups),
        "scales": tuple(scales),
        "zeros": tuple(zeros),
    }
    return operands, attrs


def stages(inputs: Sequence[Value | None], attrs: Attrs, name: str = "stage", source: str = "") -> list[Node]:
    """The chain as ordinary nodes, their results named `name`.0, `name`.1, …"""
    x = inputs[0]
    assert x is not None
    value, at, nodes = x, 1, []
    operands: tuple[Value | None, ...]
    for i, (scale, zero) in enumerate(zip(attrs["scales"], attrs["zeros"], strict=True)):
        kind, sh, sw, *rest = attrs["geometry"][_PER_STAGE * i : _PER_STAGE * (i + 1)]
        if kind == ADD:
            op_name, operands, stage_attrs = "QLinearAdd", (value, x), {}
        else:
            op_name, operands = "QLinearConv", (value, *inputs[at : at + 3])
            at += 3
            stage_attrs = {
                "strides": (sh, sw),
                "pads": tuple(rest[:4]),
                "dilations": tuple(rest[4:]),
                "groups": attrs["groups"][i],
            }
        full, results = infer_node(op_name, operands, stage_attrs, source, 1)
        value = Value(f"{name}.{i}", results[0][0], results[0][1], Quant(scale, zero))
        nodes.append(Node(op_name, tuple(operands), (value,), MappingProxyType(full), source))
    return nodes


def stage_window(node: Node) -> Window:
    """Window of a stage; an add is a 1x1 window."""
    if node.op == "QLinearConv":
        return node_window(node)
    n, h, w, c = node.output.shape
    return Window(n, h, w, c, h, w, c, 1, 1)


def window_bytes(nodes: Sequence[Node]) -> int:
    """Bytes of the rows kept between the stages (tl_stream.h)."""
    total = 0
    for node, reader in pairwise(nodes):
        s, r = stage_window(node), stage_window(reader)
        total += min((r.kh - 1) * r.dh + 1, s.oh) * s.ow * s.o
    return total


def _infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    count = len(attrs["scales"])
    check(1 <= count <= STAGES, f"a chain of {count} stages")
    check(
        len(attrs["geometry"]) == _PER_STAGE * count == _PER_STAGE * len(attrs["groups"]),
        "geometry of another length",
    )
    nodes = stages(inputs, attrs)
    last = nodes[-1].output
    return [(last.dtype, last.shape), ("s8", (max(1, window_bytes(nodes)),))]


def _macs(node: Node) -> int:
    return sum(OPS[n.op].macs(n) for n in stages(node.inputs, node.attrs))


@op(
    "StreamRows",
    _infer,
    (4, 1 + 3 * STAGES),
    {"geometry": REQUIRED, "groups": REQUIRED, "scales": REQUIRED, "zeros": REQUIRED},
    macs=_macs,
)
def stream_rows(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """x s8 (N, H, W, C), then weight, bias, scale of each convolution -> y s8, rows kept (undefined)."""
    nodes = stages(call.node.inputs, call.attrs)
    given = zip(call.node.inputs, call.inputs, strict=True)
    env: dict[str, np.ndarray] = {v.name: a for v, a in given if v is not None and a is not None}
    for node in nodes:
        args = tuple(None if v is None else env[v.name] for v in node.inputs)
        result = OPS[node.op].run(Call(node, args, call.real, call.scales))
        env[node.output.name] = result[0] if isinstance(result, tuple) else result
    return env[nodes[-1].output.name], np.zeros(call.node.outputs[1].shape, np.int8)
