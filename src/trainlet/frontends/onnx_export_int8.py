"""Exporters of int8 arithmetic, as chains of ONNX operators that round where ours do.

No QDQ pairs: a runtime may fuse those and round elsewhere. With these chains onnxruntime gives the same
integers as the interpreter: sums that float32 holds exactly, then one operation at a time, in our order.
"""

from __future__ import annotations

import numpy as np

from trainlet.frontends.onnx_export_float import conv_attrs, operand, overlaid, pool_attrs
from trainlet.frontends.onnx_writer import Writer, channels_first, exporter
from trainlet.ir.graph import Node, Value
from trainlet.ir.ops.pooling import node_pool
from trainlet.ir.ops.window import Window, patches


def _zero(value: Value) -> int:
    return 0 if value.quant is None else value.quant.zero_point


def _scale(writer: Writer, value: Value) -> np.float32:
    return np.float32(writer.graph.scales(value))


def _cast(writer: Writer, name: str, to: str, wanted: str) -> str:
    from onnx import TensorProto as T

    return writer.add("Cast", [name], wanted, to=T.DataType.Value(to))


def _saturate(writer: Writer, name: str, zero: int, y: str) -> str:
    """int8 of rint(x) + zero, clamped."""
    name = writer.add("Round", [name], f"{y}/round")
    if zero:
        name = writer.add("Add", [name, writer.number(f"{y}/zero", zero)], f"{y}/shifted")
    bounds = [writer.number("int8_min", -128), writer.number("int8_max", 127)]
    return _cast(writer, writer.add("Clip", [name, *bounds], f"{y}/clip"), "INT8", y)


def _centered(writer: Writer, name: str, value: Value, wanted: str) -> str:
    """float32 of x - zero point."""
    name = _cast(writer, name, "FLOAT", f"{wanted}/float")
    if not (zero := _zero(value)):
        return name
    return writer.add("Sub", [name, writer.number(f"{value.name}/zero_point", zero)], f"{wanted}/centered")


def exact_digits(w: np.ndarray, reach: int) -> list[tuple[int, np.ndarray]]:
    """Integer weights (O, ...) as a sum of factor * digit, such that float32 adds digit * x exactly for
    any integers |x| <= reach, in any order: no partial sum passes 2^24. One digit nearly always does;
    2-bit digits do up to 32,896 weights an output, more are summed as well as float32 can."""
    for bits in (16, 8, 4, 2):
        rest = w.astype(np.int64)
        digits: list[tuple[int, np.ndarray]] = []
        while rest.any() or not digits:
            low = (rest + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
            digits.append((1 << bits * len(digits), low))
            rest = (rest - low) >> bits
        sums = [np.abs(digit).reshape(len(w), -1).sum(1).max() for _, digit in digits]
        if max(sums) * reach <= 2**24:
            break
    return digits


def _accumulate(writer: Writer, node: Node, trained: int, y: str) -> tuple[str, bool]:
    """Sums of (x - zero) w as an int32 tensor, called `y` if possible; whether it is channels first.

    A float Conv, not ConvInteger: onnxruntime saturates sums of two int8 products on x86 without VNNI.
    The cast to int32 keeps it from folding the bias and the scale that follow into the float weights.
    """
    x, w = operand(node, 0), operand(node, 1)
    rank, reach = len(w.shape) - 2, max(128 + _zero(x), 127 - _zero(x))
    centered = _centered(writer, writer.first(x) if rank else writer.plain(x), x, y)
    digits = exact_digits(overlaid(writer, node, trained, integer=True), reach)
    total = ""
    for i, (factor, digit) in enumerate(digits):
        name = f"{w.name}/digit{i}" if i else w.name
        sums = _product(writer, node, centered, name, digit)
        part = _cast(writer, sums, "INT32", y if len(digits) == 1 else f"{y}/part{i}")
        if factor > 1:
            part = writer.add(
                "Mul", [part, writer.number(f"{name}/factor", factor, np.int32)], f"{y}/scaled{i}"
            )
        total = writer.add("Add", [total, part], f"{y}/total{i}") if total else part
    return total, bool(rank)


def _product(writer: Writer, node: Node, x: str, name: str, w: np.ndarray) -> str:
    """x times integer weights (O, *K, I), stored as small as they are, in float32."""
    kind = np.int8 if max(-w.min(), w.max() + 1) <= 128 else np.int16
    stored = writer.initializer(name, w.astype(kind).transpose(channels_first(w.ndim)))
    weights, y = _cast(writer, stored, "FLOAT", f"{name}/float"), f"{node.output.name}/product"
    if w.ndim > 2:
        return writer.add("Conv", [x, weights], y, **conv_attrs(node, w.ndim - 2))
    weights = writer.add("Transpose", [weights], f"{name}/transpose", perm=(1, 0))
    return writer.add("MatMul", [x, weights], y)


@exporter("ConvInteger")
def conv_integer(writer: Writer, node: Node) -> None:
    """Exact sums, int32."""
    writer.define(node.output, *_accumulate(writer, node, 2, node.output.name))


def _requantize(writer: Writer, node: Node, acc: str, first: bool, operands: tuple[Value, Value]) -> None:
    """acc s32 -> s8: one add, one multiply, one rounding, as in the interpreter's Requantize."""
    (bias, scale), y = operands, node.output
    data, wide = writer.arrays[bias.name], (-1, *(1,) * (len(y.shape) - 2)) if first else (-1,)
    b = writer.initializer(bias.name, data.reshape(wide))
    b = _cast(writer, b, "FLOAT", f"{bias.name}/float") if data.dtype != np.float32 else b
    factor = writer.initializer(scale.name, writer.arrays[scale.name].reshape(wide))
    total = writer.add("Add", [_cast(writer, acc, "FLOAT", f"{y.name}/sum"), b], f"{y.name}/biased")
    scaled = writer.add("Mul", [total, factor], f"{y.name}/scaled")
    writer.define(y, _saturate(writer, scaled, _zero(y), y.name), first)


@exporter("Requantize")
def requantize(writer: Writer, node: Node) -> None:
    """Cast, Add, Mul, Round, Add, Clip, Cast."""
    acc, first = writer.any(operand(node, 0))
    _requantize(writer, node, acc, first, (operand(node, 1), operand(node, 2)))


@exporter("QLinearConv")
def qlinear_conv(writer: Writer, node: Node) -> None:
    """ConvInteger and Requantize."""
    acc, first = _accumulate(writer, node, 4, f"{node.output.name}/acc")
    _requantize(writer, node, acc, first, (operand(node, 2), operand(node, 3)))


@exporter("QLinearAdd")
def qlinear_add(writer: Writer, node: Node) -> None:
    """((a - za) sa + (b - zb) sb) / sy, rounded."""
    y, values = node.output, [operand(node, 0), operand(node, 1)]
    names, first = writer.together(values, len(y.shape))
    terms = []
    for side, name, value in zip("ab", names, values, strict=True):
        part = _centered(writer, name, value, f"{y.name}/{side}")
        factor = writer.number(f"{value.name}/scale", float(_scale(writer, value)))
        terms.append(writer.add("Mul", [part, factor], f"{y.name}/{side}/real"))
    total = writer.add("Add", terms, f"{y.name}/sum")
    divisor = writer.number(f"{y.name}/scale", float(_scale(writer, y)))
    scaled = writer.add("Div", [total, divisor], f"{y.name}/scaled")
    writer.define(y, _saturate(writer, scaled, _zero(y), y.name), first)


@exporter("QLinearMul")
def qlinear_mul(writer: Writer, node: Node) -> None:
    """(a - za)(b - zb) (sa sb / sy), rounded; the integer product is exact in float32."""
    y, values = node.output, [operand(node, 0), operand(node, 1)]
    names, first = writer.together(values, len(y.shape))
    parts = [_centered(writer, n, v, f"{y.name}/{s}") for s, n, v in zip("ab", names, values, strict=True)]
    sa, sb, sy = (np.float64(_scale(writer, v)) for v in (*values, y))
    product = writer.add("Mul", parts, f"{y.name}/product")
    factor = writer.number(f"{y.name}/factor", float(np.float32(sa * sb / sy)))
    scaled = writer.add("Mul", [product, factor], f"{y.name}/scaled")
    writer.define(y, _saturate(writer, scaled, _zero(y), y.name), first)


@exporter("QLinearLookup")
def qlinear_lookup(writer: Writer, node: Node) -> None:
    """Gather from the table at x + 128."""
    name, first = writer.any(operand(node, 0))
    y = node.output.name
    wide, offset = _cast(writer, name, "INT32", f"{y}/int"), writer.number("int8_offset", 128, np.int32)
    index = writer.add("Add", [wide, offset], f"{y}/index")
    writer.define(node.output, writer.add("Gather", [writer.plain(operand(node, 1)), index], y), first)


@exporter("QuantizeLinear")
def quantize_linear(writer: Writer, node: Node) -> None:
    """rint(x / scale) + zero, clamped."""
    name, first = writer.any(operand(node, 0))
    y = node.output
    factor = writer.number(f"{y.name}/scale", float(_scale(writer, y)))
    scaled = writer.add("Div", [name, factor], f"{y.name}/scaled")
    writer.define(y, _saturate(writer, scaled, _zero(y), y.name), first)


@exporter("DequantizeLinear")
def dequantize_linear(writer: Writer, node: Node) -> None:
    """(x - zero) * scale."""
    x, y = operand(node, 0), node.output.name
    name, first = writer.any(x)
    factor = writer.number(f"{x.name}/scale", float(_scale(writer, x)))
    writer.define(node.output, writer.add("Mul", [_centered(writer, name, x, y), factor], y), first)


@exporter("RoundMaster")
def round_master_node(writer: Writer, node: Node) -> None:
    """int16 of rint(x), clamped."""
    (name, first), y = writer.any(operand(node, 0)), node.output.name
    bounds = [writer.number("int16_min", -32768), writer.number("int16_max", 32767)]
    name = writer.add("Clip", [writer.add("Round", [name], f"{y}/round"), *bounds], f"{y}/clip")
    writer.define(node.output, _cast(writer, name, "INT16", y), first)


def average_pool_s8(writer: Writer, node: Node) -> str:
    """rint of the float32 mean, channels first: the exact sum of each window divided by its count."""
    x, y, s = operand(node, 0), node.output.name, node_pool(node)
    name = _cast(writer, writer.first(x), "FLOAT", f"{y}/float")
    rank, include = len(x.shape) - 2, bool(node.attrs["count_include_pad"])
    if node.attrs["kernel"]:
        attrs = pool_attrs(node)
        if include and any(attrs["pads"]):
            begin, end = attrs["pads"][:rank], attrs["pads"][rank:]
            pads = writer.ints(f"{y}/pads", [0, 0, *begin, 0, 0, *end])
            name = writer.add("Pad", [name, pads, writer.number(f"{y}/zero", _zero(x))], f"{y}/padded")
            attrs["pads"] = (0,) * (2 * rank)
        ones = np.ones((x.shape[-1], 1, *attrs["kernel_shape"]), np.float32)
        inputs = [name, writer.initializer(f"{y}/ones", ones)]
        total = writer.add("Conv", inputs, f"{y}/sum", group=s.c, **attrs)
    else:
        axes = writer.ints(f"{y}/axes", range(2, rank + 2))
        total = writer.add("ReduceSum", [name, axes], f"{y}/sum", keepdims=1)
    counts = _counts(s, include).reshape((1, s.oh, s.ow, 1) if rank == 2 else (1, s.ow, 1))
    divisor = writer.initializer(f"{y}/count", counts.transpose(channels_first(rank + 2)))
    return _saturate(writer, writer.add("Div", [total, divisor], f"{y}/mean"), 0, y)


def _counts(s: Window, include_pad: bool) -> np.ndarray:
    """Elements that each window averages, float32 (1, oh, ow, c or 1)."""
    if include_pad:
        return np.full((1, s.oh, s.ow, 1), s.kh * s.kw, np.float32)
    inside = patches(np.ones((s.n, s.h, s.w, s.c), np.float32), s)
    return np.ascontiguousarray(inside.sum((3, 4))[:1, :, :, :1])
