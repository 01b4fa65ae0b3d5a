"""Gradients of convolutions and clamps, and the fusions of a weight gradient with its update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Node, Shape, Value
from trainlet.ir.ops.convolution import GEOMETRY, overlay, round_master
from trainlet.ir.ops.optimizers import UPDATE, run_update, updated
from trainlet.ir.ops.table import REQUIRED, Call, Result, check, op
from trainlet.ir.ops.window import Window, conv_window, correlate_input, correlate_weight, window

INPUT_GRAD: Attrs = {**GEOMETRY, "x_shape": REQUIRED, "integer": False, "w_zero": 0}
WEIGHT_GRAD: Attrs = {**GEOMETRY, "kernel": REQUIRED, "depthwise": False}


def input_grad_window(node: Node) -> Window:
    """Window of the forward convolution whose input gradient this node computes."""
    w = node.inputs[1]
    assert w is not None
    return conv_window(tuple(node.attrs["x_shape"]), w.shape, node.attrs)  # type: ignore[arg-type]


def _input_grad_shape(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    dy, w = inputs[:2]
    assert dy is not None and w is not None
    shape: Shape = tuple(attrs["x_shape"])  # type: ignore[arg-type]
    s = conv_window(shape, w.shape, attrs)
    check(dy.size == s.positions * s.o, f"gradient {dy.shape} for {s.positions} x {s.o} outputs")
    return [("f32", shape)]


def inplace_scratch_bytes(s: Window, lanes: int = 16) -> int:
    """Scratch with which a depthwise input gradient overwrites its operand (tl_conv.h)."""
    return 4 * lanes * (s.kh * s.kw + ((s.kh - 1) * s.dh + 1) * s.w)


def input_grad_fits(node: Node, operand: int) -> bool:
    """The addend always; dy only if depthwise at stride 1, and if the rows kept aside cost little."""
    s = input_grad_window(node)
    if operand == 2:
        return True
    same = s.depthwise and s.sh == s.sw == 1 and (s.oh, s.ow) == (s.h, s.w) and node.input(2) is None
    return same and 4 * inplace_scratch_bytes(s) <= node.output.bytes


@op(
    "ConvInputGrad",
    _input_grad_shape,
    (2, 5),
    INPUT_GRAD,
    inplace={0: (2, 0)},
    inplace_fits=input_grad_fits,
    macs=lambda node: input_grad_window(node).macs,
)
def conv_input_grad(call: Call) -> np.ndarray:
    """dy f32, w, addend f32?, trained?, channels? -> dx f32 (x_shape) = conv_transpose(dy, w) [+ addend].

    `integer`: w is int8, or the float master of one (rounded where it is read); w_zero is subtracted.
    """
    s, integer, zero = input_grad_window(call.node), bool(call.attrs["integer"]), int(call.attrs["w_zero"])
    base, patch = round_master(call[1], integer, zero), round_master(call[3], integer, zero)
    w = overlay(base, patch, call[4], s.groups)  # type: ignore[arg-type]
    dy = call[0].astype(np.float64).reshape(s.n, s.oh, s.ow, s.o)
    dx = correlate_input(dy, w.astype(np.float64), s).reshape(call.node.output.shape)
    return (dx if call[2] is None else dx + call[2]).astype(call.real)


def weight_grad_window(node: Node) -> Window:
    """Window over the saved input x, which holds only the channels that are updated."""
    x, dy = node.inputs[:2]
    assert x is not None and dy is not None
    if node.attrs["depthwise"]:
        return window(x.shape, x.shape[-1], tuple(node.attrs["kernel"]), node.attrs, x.shape[-1])  # type: ignore[arg-type]
    return window(x.shape, dy.shape[-1], tuple(node.attrs["kernel"]), node.attrs, int(node.attrs["groups"]))  # type: ignore[arg-type]


def _weight_grad_shape(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x, dy = inputs[:2]
    assert x is not None and dy is not None
    kernel: Shape = tuple(attrs["kernel"])  # type: ignore[arg-type]
    if attrs["depthwise"]:
        return [("f32", (x.shape[-1], *kernel, 1))]
    return [("f32", (dy.shape[-1], *kernel, x.shape[-1] // int(attrs["groups"])))]  # type: ignore[arg-type]


def _weight_grad(call: Call) -> np.ndarray:
    s = weight_grad_window(call.node)
    x = call[0].astype(np.float64) - call.zero(0)
    dy = call[1].astype(np.float64).reshape(s.n, s.oh, s.ow, -1)
    if call.attrs["depthwise"] and call[2] is not None:
        dy = dy[..., call[2]]
    infer = _weight_grad_shape(call.node.inputs, call.attrs)
    return correlate_weight(x, dy, s).reshape(infer[0][1]).astype(call.real)


def _weight_grad_macs(node: Node) -> int:
    return weight_grad_window(node).macs


@op("ConvWeightGrad", _weight_grad_shape, (2, 3), WEIGHT_GRAD, macs=_weight_grad_macs)
def conv_weight_grad(call: Call) -> np.ndarray:
    """x (saved input, its k updated channels), dy f32, channels? (depthwise) -> dw f32 (O, *K, k)."""
    return _weight_grad(call)


def _fused_shape(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    return updated(inputs[3:], attrs)


@op(
    "ConvWeightGradUpdate",
    _fused_shape,
    (4, 11),
    {**WEIGHT_GRAD, **UPDATE},
    macs=_weight_grad_macs,
    inplace={0: (3,)},
)
def conv_weight_grad_update(call: Call) -> tuple[np.ndarray, ...]:
    """ConvWeightGrad, then Update, a row at a time: x, dy, channels?, then Update's operands from w on."""
    return run_update(call, _weight_grad(call), 3)


def _bias_shape(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    dy = inputs[0]
    assert dy is not None
    return [("f32", (dy.shape[-1],))]


@op("BiasGrad", _bias_shape, 1)
def bias_grad(call: Call) -> np.ndarray:
    """dy f32 (..., C) -> sum over all but the last axis, f32 (C)."""
    return call[0].astype(np.float64).reshape(-1, call[0].shape[-1]).sum(0).astype(call.real)


@op("BiasGradUpdate", lambda i, a: updated(i[1:], a), (2, 9), UPDATE, inplace={0: (1,)})
def bias_grad_update(call: Call) -> tuple[np.ndarray, ...]:
    """BiasGrad, then Update: dy, then Update's operands from w on."""
    return run_update(call, bias_grad(call), 1)


def _like_dy(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    dy = inputs[0]
    assert dy is not None
    return [("f32", dy.shape)]


@op("RequantizeGrad", _like_dy, 3, inplace={0: (0,)})
def requantize_grad(call: Call) -> np.ndarray:
    """dy f32 (..., C), scale f32 (C), mask u1 -> mask ? dy * scale : 0 (int8.md, Backward)."""
    return np.where(call[2], call[0] * call[1].astype(call.real), 0).astype(call.real)


@op("MaskGrad", _like_dy, 2, {"factor": 1.0}, inplace={0: (0,)})
def mask_grad(call: Call) -> np.ndarray:
    """dy f32, mask u1 -> mask ? dy * factor : 0."""
    return np.where(call[1], call[0] * call.real(np.float32(call.attrs["factor"])), 0).astype(call.real)
