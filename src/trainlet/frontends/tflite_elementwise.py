"""Importers of elementwise operators, of functions of one value, and of those that move elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainlet.frontends.tflite_import import (
    QUANTIZED,
    Import,
    Unsupported,
    all_integers,
    clamp,
    clamp_of,
    importer,
    int8_data,
    per_tensor,
    quant_of,
    rescaled,
    shift_of,
)
from trainlet.frontends.tflite_model import TfOperator, TfTensor
from trainlet.ir.graph import Attr, Quant, Shape, Value
from trainlet.ir.ops.elementwise import UNARY


@importer("ADD", "SUB", "MUL")
def binary(ctx: Import, o: TfOperator) -> None:
    """Sum, difference or product of two activations of one shape, or of one and a constant spread over it."""
    left, right = o.input(0), o.input(1)
    if left is None or right is None:
        raise Unsupported("lacks an operand")
    quant, shape = quant_of(o.output), o.output.shape
    if o.op == "MUL" and left.shape != shape:
        left, right = right, left
    gate = (shape[0], *(1,) * max(len(shape) - 2, 0), shape[-1])
    a, b = _operand(ctx, left, shape), _operand(ctx, right, shape, gate if o.op == "MUL" else None)
    attrs: dict[str, Attr] = {"fixed": True, **clamp_of(o, quant)}
    if o.op == "SUB":
        attrs["subtract"] = True
    ctx.define(o, ctx.add("QLinearMul" if o.op == "MUL" else "QLinearAdd", [a, b], o, attrs, quant=quant))


def _operand(ctx: Import, t: TfTensor, shape: Shape, gate: Shape | None = None) -> Value:
    if t.index in ctx.values:
        value = ctx.values[t.index]
        if value.shape not in (shape, gate):
            raise Unsupported(f"spreads {t.name} of shape {value.shape} over {shape}")
        per_tensor(value)
        return value
    data, quant = int8_data(t), quant_of(t)
    try:
        spread = np.broadcast_to(data, shape)
        if gate is not None and np.array_equal(np.broadcast_to(spread[:, :1, :1][..., :], shape), spread):
            spread = spread.reshape(shape[0], -1, shape[-1])[:, :1].reshape(gate)
    except ValueError:
        raise Unsupported(f"spreads {t.name} of shape {t.shape} over {shape}") from None
    return ctx.constant(t, np.ascontiguousarray(spread), "s8", quant)


RELUS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


@importer(*RELUS)
def relu(ctx: Import, o: TfOperator) -> None:
    """To the output's scale in fixed point, then the clamp: a table."""
    x, quant = ctx.value(o.input(0)), quant_of(o.output)
    bounds = clamp(RELUS[o.op], quant)
    table = np.clip(_requantized(per_tensor(x), quant), bounds["lo"], bounds["hi"])
    ctx.define(o, ctx.lookup(o, x, table, quant))


def _requantized(x: Quant, y: Quant) -> np.ndarray:
    """Every int8 value of scale x, in scale y."""
    factor = float(np.float32(x.scale)) / float(np.float32(y.scale))
    return rescaled(all_integers() - x.zero_point, factor, y.zero_point)


FUNCTIONS = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish"}


@importer(*FUNCTIONS)
def function(ctx: Import, o: TfOperator) -> None:
    """A table of the real function, rounded; the float op where the operand is float."""
    x, name = ctx.value(o.input(0)), FUNCTIONS[o.op]
    if x.dtype == "f32":
        ctx.define(o, ctx.add(name, [x], o))
        return
    apply: Callable[..., np.ndarray] = UNARY[name][0]
    quant = quant_of(o.output)
    real = (all_integers() - per_tensor(x).zero_point) * float(np.float32(per_tensor(x).scale))
    table = np.rint(apply(real, {}) / float(np.float32(quant.scale))) + quant.zero_point
    ctx.define(o, ctx.lookup(o, x, np.clip(table, -128, 127), quant))


@importer("SOFTMAX")
def softmax(ctx: Import, o: TfOperator) -> None:
    """In float between two conversions: within one unit of TFLite's tables."""
    x, beta, name = ctx.value(o.input(0)), float(o.options.get("Beta", 1.0)), o.output.label
    real = x
    if x.dtype == "s8":
        real = ctx.add("DequantizeLinear", [x], o, name=f"{name}/logits")
    if beta != 1:
        real = ctx.add("Scale", [real], o, {"factor": beta}, name=f"{name}/scaled")
    if x.dtype == "f32":
        ctx.define(o, ctx.add("Softmax", [real], o))
        return
    share = ctx.add("Softmax", [real], o, name=f"{name}/softmax")
    ctx.define(o, ctx.add("QuantizeLinear", [share], o, quant=quant_of(o.output)))


@importer("QUANTIZE")
def quantize(ctx: Import, o: TfOperator) -> None:
    """float -> int8, or int8 from one scale to another."""
    x, quant = ctx.value(o.input(0)), quant_of(o.output)
    if x.dtype == "f32":
        ctx.define(o, ctx.add("QuantizeLinear", [x], o, quant=quant))
    else:
        ctx.define(o, ctx.lookup(o, x, _requantized(per_tensor(x), quant), quant))


@importer("DEQUANTIZE")
def dequantize(ctx: Import, o: TfOperator) -> None:
    """int8 -> float."""
    x = ctx.value(o.input(0))
    per_tensor(x)
    ctx.define(o, ctx.add("DequantizeLinear", [x], o))


@importer("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(ctx: Import, o: TfOperator) -> None:
    """The file says the resulting shape."""
    x = ctx.value(o.input(0))
    ctx.define(o, ctx.reshaped(o, x, o.output.shape))


@importer("PAD", "PADV2")
def pad(ctx: Import, o: TfOperator) -> None:
    """Left to the convolutions where they alone read it, else a copy. Float pads 0, int8 its zero point."""
    x, t = ctx.value(o.input(0)), o.input(1)
    if t is None or t.data is None:
        raise Unsupported("pads by a computed amount")
    pads = t.data.reshape(-1, 2).astype(int)
    rank, value = len(x.shape), _pad_value(o, x)
    neutral = x.quant is not None and value == x.quant.zero_point
    readers = ctx.model.readers(o.output)
    folds = all(r.op in ("CONV_2D", "DEPTHWISE_CONV_2D") and r.input(0) is o.output for r in readers)
    if neutral and folds and readers and rank == 4 and not pads[[0, 3]].any() and o.input(0) is not None:
        source = o.input(0)
        assert source is not None
        before = ctx.padding.get(source.index, (0, 0, 0, 0))
        ctx.padding[o.output.index] = tuple(  # type: ignore[assignment]
            int(a + b) for a, b in zip(before, pads[1:3].reshape(-1), strict=True)
        )
        ctx.values[o.output.index] = x
        return
    attrs: dict[str, Attr] = {"pads": (*pads[:, 0].tolist(), *pads[:, 1].tolist()), "value": value}
    ctx.define(o, ctx.add("Pad", [x], o, attrs, quant=x.quant))


def _pad_value(o: TfOperator, x: Value) -> int | float:
    t = o.input(2)
    if t is not None and t.data is not None:
        return (
            int(t.data.reshape(-1)[0]) - shift_of(t) if t.dtype in QUANTIZED else float(t.data.reshape(-1)[0])
        )
    return 0.0 if x.quant is None else x.quant.zero_point


@importer("CONCATENATION")
def concatenation(ctx: Import, o: TfOperator) -> None:
    """Operands in the output's scale, as they come or through a table."""
    if int(o.options.get("FusedActivationFunction", 0)):
        raise Unsupported("has a fused activation")
    quant = quant_of(o.output)
    axis = int(o.options["Axis"]) % len(o.output.shape)
    parts = []
    for i, t in enumerate(o.inputs):
        x = ctx.value(t)
        if (x.quant, per_tensor(x)) != (quant, quant):
            x = ctx.lookup(o, x, _concatenated(per_tensor(x), quant), quant, f"{o.output.label}/part{i}")
        parts.append(x)
    ctx.define(o, ctx.add("Concat", parts, o, {"axis": axis}, quant=quant))


def _concatenated(x: Quant, y: Quant) -> np.ndarray:
    """Every int8 value of scale x in scale y, in float32 as TFLite's concatenation has it."""
    scale = np.float32(x.scale) * (np.float32(1) / np.float32(y.scale))
    bias = np.float32(-x.zero_point) * scale
    real = all_integers().astype(np.float32) * scale + bias
    return np.clip(np.trunc(real + np.copysign(np.float32(0.5), real)) + y.zero_point, -128, 127)
