"""Convolutions and matrix products, float and int8, forward.

A weight may be overlaid: `trained` holds some of its input channels (`channels`), the rest stays in
`w`. For a depthwise convolution the overlay replaces output rows. A float weight of an integer
convolution is a master: it is rounded half to even where it is read, and as in the published
algorithm it may leave the int8 range (it saturates at 16 bits). A float bias is used as it is.

Two ways to int8: a scale f32 (C) multiplies in fp32; a scale s32 (2, C) holds TFLite's multipliers and
shifts (ir/fixed_point.py) and keeps everything in integers, a float bias rounded first. `w_zero` is the zero
point of asymmetric weights, subtracted from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainlet.ir.fixed_point import multiply, wrap
from trainlet.ir.graph import Attrs, Node, Value
from trainlet.ir.ops.table import Call, Infer, Result, check, op, same, with_mask
from trainlet.ir.ops.window import Window, conv_window, correlate, out_shape

GEOMETRY: Attrs = {"strides": (), "pads": (), "dilations": (), "groups": 1}
CLIP: Attrs = {"lo": -math.inf, "hi": math.inf}
INTEGER: Attrs = {**GEOMETRY, "w_zero": 0}
RANGE: Attrs = {"lo": -128, "hi": 127}  # the clamp of an int8 result, narrower where an activation is fused
RESCALE: Attrs = {**RANGE, "once": False}  # once: a fixed-point product is rounded once, not twice


def node_window(node: Node) -> Window:
    """Window of a forward convolution or Gemm node (operands x, w)."""
    x, w = node.inputs[:2]
    assert x is not None and w is not None
    return conv_window(x.shape, w.shape, node.attrs)


def _macs(node: Node) -> int:
    return node_window(node).macs


def _conv(dtype: str, bias: int) -> Infer:
    def infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
        x, w = inputs[:2]
        assert x is not None and w is not None
        s = conv_window(x.shape, w.shape, attrs)
        b = inputs[bias] if 0 <= bias < len(inputs) else None
        check(b is None or b.shape == (s.o,), f"bias {b and b.shape} for {s.o} output channels")
        return [(dtype, out_shape(x.shape, s, len(w.shape) - 2))]

    return infer


def overlay(
    w: np.ndarray, trained: np.ndarray | None, channels: np.ndarray | None, groups: int
) -> np.ndarray:
    """w with `trained` written over its `channels` (last axis; rows where depthwise)."""
    if trained is None:
        return w
    if channels is None:
        return trained
    w = np.array(w, dtype=np.result_type(w, trained))
    if is_depthwise(w.shape, groups):
        w[channels] = trained
    else:
        w[..., channels] = trained
    return w


def is_depthwise(w_shape: tuple[int, ...], groups: int) -> bool:
    """One input channel a group, as many outputs as inputs."""
    return groups > 1 and groups == w_shape[0] and w_shape[-1] == 1


def round_master(a: np.ndarray | None, integer: bool, zero: int = 0) -> np.ndarray | None:
    """Integers of a float master, minus the zero point; float weights unchanged."""
    if a is None or not integer:
        return a
    if a.dtype.kind != "f":
        return a - np.int32(zero) if zero else a
    return np.clip(np.rint(a) - zero, -32768, 32767)


def weights(call: Call, w: int, trained: int, integer: bool) -> np.ndarray:
    """The weight operand with its overlay, in float64 (exact for integers below 2^53)."""
    zero = int(call.attrs.get("w_zero", 0))
    base, patch = round_master(call[w], integer, zero), round_master(call[trained], integer, zero)
    full = overlay(base, patch, call[trained + 1], int(call.attrs["groups"]))  # type: ignore[arg-type]
    return full.astype(np.float64)


def _float_forward(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """y = clip(conv(x, w) + b, lo, hi); the mask is 1 strictly inside."""
    y = correlate(call[0].astype(np.float64), weights(call, 1, 3, False), node_window(call.node))
    if call[2] is not None:
        y = y + call[2]
    lo, hi = call.attrs["lo"], call.attrs["hi"]
    y = y.reshape(call.node.output.shape)
    return np.clip(y, lo, hi).astype(call.real), (y > lo) & (y < hi)


@op("Conv", with_mask(_conv("f32", 2)), (2, 5), {**GEOMETRY, **CLIP}, macs=_macs)
def conv(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """x f32 (N, *S, C), w f32 (O, *K, C/groups), b f32 (O)?, trained?, channels? -> y[, mask]."""
    return _float_forward(call)


@op("Gemm", with_mask(_conv("f32", 2)), (2, 5), {**CLIP, "groups": 1}, macs=_macs)
def gemm(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """x f32 (..., I), w f32 (O, I), b f32 (O)?, trained?, channels? -> y f32 (..., O)[, mask]."""
    return _float_forward(call)


def _integer(call: Call, trained: int) -> np.ndarray:
    x = call[0].astype(np.float64) - call.zero(0)
    return correlate(x, weights(call, 1, trained, True), node_window(call.node)).reshape(
        call.node.output.shape
    )


@op("ConvInteger", _conv("s32", -1), (2, 4), INTEGER, macs=_macs)
def conv_integer(call: Call) -> np.ndarray:
    """x s8, w s8 (or master), trained?, channels? -> sum (x - zero)(w - w_zero), s32; no padding."""
    return _integer(call, 2).astype(np.int32)


def _requantize(
    call: Call, acc: np.ndarray, bias: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One fp32 add, one fp32 multiply, half to even, zero point, clamp (int8.md); or TFLite's integers."""
    zero, lo, hi = _out_zero(call.node), call.attrs["lo"], call.attrs["hi"]
    if scale.dtype == np.int32:
        if bias.dtype.kind == "f":  # the largest float below 2^31
            bias = np.clip(np.rint(bias), -(2.0**31), 2147483520.0)
        total = wrap(acc.astype(np.int64) + bias.astype(np.int64))
        v = multiply(total, scale[0], scale[1], bool(call.attrs["once"])) + zero
    else:
        real = acc.astype(np.float32) + bias.astype(np.float32)
        v = np.rint(real * scale.astype(np.float32)) + np.float32(zero)
    return np.clip(v, lo, hi).astype(np.int8), (v >= lo) & (v <= hi)


def _out_zero(node: Node) -> int:
    quant = node.output.quant
    check(quant is not None, f"result {node.output.name} needs quantization parameters")
    return quant.zero_point  # type: ignore[union-attr]


def _requantized(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    acc, bias, scale = inputs
    assert acc is not None and bias is not None and scale is not None
    channels = acc.shape[-1]
    check(bias.shape == (channels,), "one bias per channel")
    check_scale(scale, channels, attrs)
    return [("s8", acc.shape)]


def check_scale(scale: Value, channels: int, attrs: Attrs) -> None:
    """A scale is f32 (C), with the clamp of int8, or s32 (2, C), with any clamp."""
    fixed = scale.dtype == "s32"
    check(scale.shape == ((2, channels) if fixed else (channels,)), "one scale per channel")
    plain = (attrs["lo"], attrs["hi"], attrs["once"]) == (-128, 127, False)
    check(fixed or plain, "lo, hi and once need fixed-point scales")


@op("Requantize", with_mask(_requantized), 3, RESCALE)
def requantize(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """acc s32 (..., C), bias s32 or f32 master (C), scale f32 (C) or s32 (2, C) -> y s8[, mask]."""
    return _requantize(call, call[0], call[1], call[2])


def forward_inplace_scratch_bytes(s: Window, lanes: int = 16) -> int:
    """Scratch with which a depthwise int8 convolution overwrites its operand (tl_conv.h)."""
    return lanes * (4 * s.kh * s.kw + s.h * s.w)


def _overwrites(node: Node, operand: int) -> bool:
    """x only if depthwise at stride 1, and if the channels copied aside cost little."""
    s = node_window(node)
    same = s.depthwise and s.sh == s.sw == 1 and (s.oh, s.ow) == (s.h, s.w)
    return same and 4 * forward_inplace_scratch_bytes(s) <= node.output.bytes


@op(
    "QLinearConv",
    with_mask(_conv("s8", 2)),
    (4, 6),
    {**INTEGER, **RESCALE},
    macs=_macs,
    inplace={0: (0,)},
    inplace_fits=_overwrites,
)
def qlinear_conv(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """ConvInteger and Requantize in one: x, w, bias, scale, trained?, channels? -> y s8[, mask]."""
    return _requantize(call, _integer(call, 4), call[2], call[3])


def _overlaid(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    base, trained, channels = inputs
    assert base is not None and trained is not None and channels is not None
    depthwise = is_depthwise(base.shape, int(attrs["groups"]))  # type: ignore[arg-type]
    axis, k = (0 if depthwise else -1), channels.size
    check(trained.shape[axis] == k <= base.shape[axis], f"{k} channels over {base.shape}")
    return [(trained.dtype, base.shape)]


@op("OverlayChannels", _overlaid, 3, {"groups": 1})
def overlay_channels(call: Call) -> np.ndarray:
    """base, trained, channels u16 (k) -> the weight a convolution reads; folded into it later."""
    return overlay(call[0], call[1], call[2], int(call.attrs["groups"]))  # type: ignore[arg-type]


@op("RoundMaster", lambda inputs, attrs: [("s16", inputs[0].shape)], 1)  # type: ignore[union-attr]
def round_master_op(call: Call) -> np.ndarray:
    """f32 master -> the integer weight it stands for; folded into its readers later."""
    rounded = round_master(call[0], True)
    assert rounded is not None
    return rounded.astype(np.int16)


@op("TakeChannels", lambda i, attrs: [(i[0].dtype, (*i[0].shape[:-1], i[1].size))], 2)  # type: ignore[union-attr]
def take_channels(call: Call) -> np.ndarray:
    """x (..., C), channels u16 (k) -> x[..., channels]: all that a sparse weight gradient needs."""
    return call[0][..., call[1]]


def _matmul_shape(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    a, b = inputs
    assert a is not None and b is not None
    check(len(a.shape) >= 2 and a.shape[:-2] == b.shape[:-2], f"matrix batches {a.shape}, {b.shape}")
    m, k = a.shape[-2:][::-1] if attrs["trans_a"] else a.shape[-2:]
    k2, n = b.shape[-2:][::-1] if attrs["trans_b"] else b.shape[-2:]
    check(k == k2, f"inner dimensions {k} and {k2}")
    return [("f32", (*a.shape[:-2], m, n))]


@op(
    "MatMul",
    _matmul_shape,
    2,
    {"trans_a": False, "trans_b": False},
    macs=lambda n: n.output.size * n.inputs[0].shape[-2 if n.attrs["trans_a"] else -1],  # type: ignore[union-attr]
)
def matmul(call: Call) -> np.ndarray:
    """a f32 (*B, M, K) times b f32 (*B, K, N), each optionally transposed -> (*B, M, N)."""
    a = call[0].swapaxes(-1, -2) if call.attrs["trans_a"] else call[0]
    b = call[1].swapaxes(-1, -2) if call.attrs["trans_b"] else call[1]
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(call.real)


__all__ = ["CLIP", "GEOMETRY", "is_depthwise", "node_window", "same"]
