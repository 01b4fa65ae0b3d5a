"""Importers of convolutions, matrix products and pools.

A uint8 weight w with zero point z becomes the int8 w - 128 with zero point z - 128: as many bytes in flash.
The convolution subtracts the zero point as it reads (9 bits, exact in the kernels' 16-bit panels).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainlet.frontends.tflite_import import (
    Import,
    Unsupported,
    all_integers,
    clamp_of,
    importer,
    int8_data,
    per_tensor,
    quant_of,
    shift_of,
)
from trainlet.frontends.tflite_model import TfOperator, TfTensor
from trainlet.ir.fixed_point import rescaling
from trainlet.ir.graph import Attr, Quant, Value

SAME = 0  # of the schema's Padding
MAX_SUM = 2**31 - 1


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one dimension: before, after."""
    reach, out = (kernel - 1) * dilation + 1, -(-size // stride)
    total = max((out - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def geometry(
    o: TfOperator, x: Value, kernel: tuple[int, int], outer: tuple[int, ...] = (0,) * 4
) -> dict[str, Attr]:
    """Strides, dilations and pads (both begins, both ends) of a window; `outer` was padded before."""
    top, bottom, left, right = outer
    if len(x.shape) != 4:
        raise Unsupported(f"slides over {len(x.shape)} dimensions, not 4")
    strides = (int(o.options["StrideH"]), int(o.options["StrideW"]))
    dilations = (int(o.options.get("DilationHFactor", 1)), int(o.options.get("DilationWFactor", 1)))
    pads = [(0, 0), (0, 0)]
    if o.options["Padding"] == SAME:
        sizes = (x.shape[1] + top + bottom, x.shape[2] + left + right)
        pads = [same_pads(*each) for each in zip(sizes, kernel, strides, dilations, strict=True)]
    (a, b), (c, d) = pads
    return {"strides": strides, "dilations": dilations, "pads": (a + top, c + left, b + bottom, d + right)}


@importer("CONV_2D")
def conv(ctx: Import, o: TfOperator) -> None:
    """Weights (O, kh, kw, C / groups), as ours."""
    x, w = ctx.value(o.input(0)), _weight_tensor(o)
    data = int8_data(w)
    attrs = geometry(o, x, data.shape[1:3], _outer(ctx, o))
    groups = x.shape[-1] // data.shape[-1]
    ctx.define(o, _convolution(ctx, o, x, data, {**attrs, "groups": groups}))


@importer("DEPTHWISE_CONV_2D")
def depthwise(ctx: Import, o: TfOperator) -> None:
    """Weights (1, kh, kw, C * multiplier): a convolution in C groups of `multiplier` outputs each."""
    x, w = ctx.value(o.input(0)), _weight_tensor(o)
    data = int8_data(w)
    attrs = geometry(o, x, data.shape[1:3], _outer(ctx, o))
    kernel = np.ascontiguousarray(data[0].transpose(2, 0, 1)[..., None])
    ctx.define(o, _convolution(ctx, o, x, kernel, {**attrs, "groups": x.shape[-1]}))


@importer("FULLY_CONNECTED")
def fully_connected(ctx: Import, o: TfOperator) -> None:
    """Weights (O, I); the operand is flattened to rows of I."""
    x, w = ctx.value(o.input(0)), _weight_tensor(o)
    if o.options.get("WeightsFormat", 0):
        raise Unsupported("has shuffled weights")
    data = int8_data(w)
    rows = math.prod(x.shape) // data.shape[1]
    if x.shape[-1] != data.shape[1]:
        x = ctx.reshaped(o, x, (rows, data.shape[1]), f"{o.output.label}/flat")
    y = _convolution(ctx, o, x, data, {})
    ctx.define(o, ctx.reshaped(o, y, o.output.shape))


def _weight_tensor(o: TfOperator) -> TfTensor:
    w = o.input(1)
    if w is None or w.data is None:
        raise Unsupported("has weights that are computed, not constant")
    if w.dtype not in ("INT8", "UINT8"):
        raise Unsupported(f"has {w.dtype} weights: convert the model with int8 weights")
    return w


def _outer(ctx: Import, o: TfOperator) -> tuple[int, int, int, int]:
    x = o.input(0)
    return ctx.padding.get(x.index, (0, 0, 0, 0)) if x is not None else (0, 0, 0, 0)


def _convolution(ctx: Import, o: TfOperator, x: Value, data: np.ndarray, attrs: dict[str, Attr]) -> Value:
    """ConvInteger and Requantize: weights data (O, ...) under the user's name, scales, bias."""
    w, quant, outputs = _weight_tensor(o), quant_of(o.output), len(data)
    zero, x_quant = _weight_zero(w), per_tensor(x)
    products = data.size // outputs
    if products * (127 - min(x_quant.zero_point, 0) + 128) * (255 if zero else 128) > MAX_SUM:
        raise Unsupported(f"sums {products} products, too many for int32")
    scales = np.broadcast_to(w.scales, outputs).astype(np.float32)
    held = ctx.constant(w, scales, "f32", suffix="/scale")
    weight = ctx.constant(w, data, "s8", Quant(held.name, zero, 0))
    rescale = ctx.builder.constant(
        f"{o.output.label}/rescale", rescaling(_factors(o, w, x_quant, quant, outputs))
    )
    how: dict[str, Attr] = {**clamp_of(o, quant), "once": o.op == "FULLY_CONNECTED"}
    if zero:
        attrs = {**attrs, "w_zero": zero}
    acc = ctx.add("ConvInteger", [x, weight], o, attrs, name=f"{o.output.label}/acc")
    operands = [acc, _bias(ctx, o, outputs), rescale]
    name = o.output.label if acc.shape == o.output.shape else f"{o.output.label}/rows"
    return ctx.add("Requantize", operands, o, how, name=name, quant=quant)


def _weight_zero(w: TfTensor) -> int:
    """Zero point of the weights as int8. Per channel there is none."""
    if not w.quantized:
        raise Unsupported(f"has the weights {w.name} without scales")
    if len(w.zeros) > 1 and w.zeros.any():
        raise Unsupported(f"has weights {w.name} with a zero point per channel")
    return int(w.zeros[0]) - shift_of(w)


def _factors(o: TfOperator, w: TfTensor, x: Quant, y: Quant, outputs: int) -> np.ndarray:
    """Real factors from sums to outputs, rounded where TFLite rounds them."""
    sx, sy = np.float32(x.scale), np.float64(np.float32(y.scale))
    if w.dtype == "UINT8" and o.op != "FULLY_CONNECTED":
        product: Any = np.float64(sx * w.scales)  # of float32, in float32
    else:
        product = np.float64(sx) * w.scales.astype(np.float64)
    return np.broadcast_to(product / sy, outputs)


def _bias(ctx: Import, o: TfOperator, outputs: int) -> Value:
    b = o.input(2)
    if b is None:
        return ctx.builder.constant(f"{o.output.label}/bias", np.zeros(outputs, np.int32))
    if b.data is None or b.dtype != "INT32" or b.data.size != outputs:
        raise Unsupported(f"has a bias {b.name} that is not {outputs} constants of int32")
    data = b.data.reshape(outputs)
    if b.label != b.name:  # of the fused layers the first is rarely the one that has the bias
        return ctx.builder.constant(f"{o.output.label}/bias", data, "s32")
    return ctx.constant(b, data, "s32")


@importer("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(ctx: Import, o: TfOperator) -> None:
    """Int8 means round half away from zero, uint8 ones half up; a fused activation becomes a table."""
    x = ctx.value(o.input(0))
    kernel, quant = (int(o.options["FilterHeight"]), int(o.options["FilterWidth"])), per_tensor(x)
    attrs = geometry(o, x, kernel)
    attrs = {"kernel": kernel, "strides": attrs["strides"], "pads": attrs["pads"]}
    if o.op == "AVERAGE_POOL_2D":
        attrs["rounding"] = "up" if o.output.dtype == "UINT8" else "away"
    bounds = clamp_of(o, quant)
    whole = (bounds["lo"], bounds["hi"]) == (-128, 127)
    op, name = ("AveragePool" if "rounding" in attrs else "MaxPool"), o.output.label
    y = ctx.add(op, [x], o, attrs, name=name if whole else f"{name}/unclamped", quant=quant)
    table = np.clip(all_integers(), bounds["lo"], bounds["hi"])
    ctx.define(o, y if whole else ctx.lookup(o, y, table, quant))


@importer("MEAN")
def mean(ctx: Import, o: TfOperator) -> None:
    """Over both spatial dimensions: one window, rescaled to the output's scale."""
    x, axes = ctx.value(o.input(0)), o.input(1)
    if axes is None or axes.data is None or len(x.shape) != 4:
        raise Unsupported("averages over computed axes, or other than 4 dimensions")
    if sorted(int(a) % 4 for a in axes.data.reshape(-1)) != [1, 2]:
        raise Unsupported(f"averages over axes {axes.data.tolist()}, not height and width")
    per_tensor(x)
    quant = quant_of(o.output)
    kept = o.output.shape == (x.shape[0], 1, 1, x.shape[3])
    attrs: dict[str, Attr] = {"kernel": (x.shape[1], x.shape[2]), "rounding": "rescaled"}
    y = ctx.add("AveragePool", [x], o, attrs, name=None if kept else f"{o.output.label}/kept", quant=quant)
    ctx.define(o, ctx.reshaped(o, y, o.output.shape))
