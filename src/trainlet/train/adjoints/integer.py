"""Adjoints of int8 arithmetic: straight through the rounding, masked by the clamp (int8.md, "Backward").

The gradient of an int8 value is with respect to the integer, in fp32. Where the forward pass scales in fixed
point, the gradient uses the real number that the fixed-point one stands for.
"""

from __future__ import annotations

import numpy as np

from trainlet.ir import Node, Value
from trainlet.ir.fixed_point import real_factors
from trainlet.train.adjoint import Adjoint, adjoint, constant_scale


@adjoint("Requantize")
def requantize(g: Adjoint, node: Node, dy: Value) -> None:
    """y = clamp(rint((acc + bias) scale) + zero).   d_acc = mask ? dy scale : 0;   d_bias = sum of d_acc."""
    acc, bias, scale = node.inputs
    assert acc is not None and bias is not None and scale is not None
    if scale.dtype == "s32":
        factors = real_factors(g.builder.constants[scale.name].data)
        scale = g.builder.constant(f"{scale.name}.real", factors)
    d_acc = g.emit("RequantizeGrad", [dy, scale, node.outputs[1]], name=f"d_{acc.name}", source=node.source)
    if g.wants(bias):
        g.give(bias, g.emit("BiasGrad", [d_acc], name=f"d_{bias.name}", source=node.source))
    if g.wants(acc):
        g.give(acc, d_acc)


@adjoint("QLinearAdd")
def qlinear_add(g: Adjoint, node: Node, dy: Value) -> None:
    """y = clamp(rint((a' sa +- b' sb) / sy) + zy).   da = mask ? dy sa / sy : 0;   db with its sign."""
    sy = constant_scale(g, node.output)
    for x, sign in zip(node.operands(), (1, -1 if node.attrs["subtract"] else 1), strict=True):
        if g.wants(x):
            factor = sign * float(np.float32(constant_scale(g, x) / sy))
            attrs = {"factor": factor}
            g.give(
                x, g.emit("MaskGrad", [dy, node.outputs[1]], attrs, name=f"d_{x.name}", source=node.source)
            )


@adjoint("QLinearMul")
def qlinear_mul(g: Adjoint, node: Node, dy: Value) -> None:
    """y = clamp(rint(a' b' s) + zy), s = sa sb / sy.   da = mask ? dy s b';   db = sum of mask ? dy s a'."""
    a, b = node.inputs
    assert a is not None and b is not None
    sy = constant_scale(g, node.output)
    masked = g.emit(
        "MaskGrad", [dy, node.outputs[1]], name=f"d_{node.output.name}.masked", source=node.source
    )
    for x, other in ((a, b), (b, a)):
        if not g.wants(x):
            continue
        real = g.emit("DequantizeLinear", [other], name=f"{other.name}.real", source=node.source)
        d = g.emit("Mul", [masked, real], name=f"d_{x.name}.product", source=node.source)
        if d.shape != x.shape:
            d = g.emit("ReduceSum", [d], {"shape": x.shape}, name=f"d_{x.name}.sum", source=node.source)
        attrs = {"factor": float(np.float32(constant_scale(g, x) / sy))}
        g.give(x, g.emit("Scale", [d], attrs, name=f"d_{x.name}", source=node.source))


@adjoint("QLinearLookup")
def qlinear_lookup(g: Adjoint, node: Node, dy: Value) -> None:
    """y = table[x + 128].   dx = dy * slope[x + 128], the slope of the table by central differences.

    A table that saturates has slope 0 there, as the clamp mask has.
    """
    x, table = node.inputs
    assert x is not None and table is not None
    if not g.wants(x):
        return
    y = g.builder.constants[table.name].data.astype(np.float64)
    slopes = g.builder.constant(f"{table.name}.slope", np.gradient(y).astype(np.float32))
    g.give(x, g.emit("LookupGrad", [dy, x, slopes], name=f"d_{x.name}", source=node.source))


@adjoint("QuantizeLinear")
def quantize_linear(g: Adjoint, node: Node, dy: Value) -> None:
    """y = clamp(rint(x / s) + z).   dx = mask ? dy / s : 0."""
    x = node.inputs[0]
    if g.wants(x):
        attrs = {"factor": float(np.float32(1 / constant_scale(g, node.output)))}
        assert x is not None
        g.give(x, g.emit("MaskGrad", [dy, node.outputs[1]], attrs, name=f"d_{x.name}", source=node.source))


@adjoint("DequantizeLinear")
def dequantize_linear(g: Adjoint, node: Node, dy: Value) -> None:
    """y = (x - z) s.   dx = dy s."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        attrs = {"factor": constant_scale(g, x)}
        g.give(x, g.emit("Scale", [dy], attrs, name=f"d_{x.name}", source=node.source))
