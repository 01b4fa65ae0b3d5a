"""Adjoints of convolutions and matrix products."""

from __future__ import annotations

import math

from trainlet.errors import UnsupportedGradient
from trainlet.ir import Node, Value
from trainlet.ir.graph import Attr
from trainlet.train.adjoint import Adjoint, adjoint

GEOMETRY = ("strides", "pads", "dilations", "groups")


def _geometry(node: Node) -> dict[str, Attr]:
    return {k: v for k, v in node.attrs.items() if k in GEOMETRY}


@adjoint("ConvInteger", "Conv", "Gemm")
def conv(g: Adjoint, node: Node, dy: Value) -> None:
    """y = conv(x, w) [+ b].   dx = conv_transpose(dy, w);   dw = correlate(x, dy);   db = sum of dy.

    x: (N, *S, C)   w: (O, *K, C / groups)   dy: (N, *S', O)
    A scheme that updates channels c of w needs only x[..., c]: this is where a sparse update saves
    memory (Lin et al., arXiv:2206.15472, section 3.2). Zero points of x are subtracted.
    """
    x, w = node.inputs[:2]
    assert x is not None and w is not None
    if math.isfinite(node.attrs.get("lo", -math.inf)) or math.isfinite(node.attrs.get("hi", math.inf)):  # type: ignore[arg-type]
        raise AssertionError("autodiff runs before fusion")
    geometry = _geometry(node)
    if (b := node.input(2)) is not None and node.op != "ConvInteger" and g.wants(b):
        g.give(b, g.emit("BiasGrad", [dy], name=f"d_{b.name}", source=node.source))
    if (p := g.parameter(w)) is not None:
        partial = p.channels is not None and p.layer.depthwise
        rows = g.channels(p) if partial else None
        attrs = {**geometry, "kernel": w.shape[1:-1], "depthwise": p.layer.depthwise}
        d_w = g.emit(
            "ConvWeightGrad", [g.take(node, x), dy, rows], attrs, name=f"d_{p.name}", source=node.source
        )
        g.give(w, d_w)
    elif g.wants(w):
        raise UnsupportedGradient(
            f"{node.op} at {node.source or node.output.name} has a weight computed from a trained layer, "
            "which has no gradient: freeze what comes before it, or use MatMul"
        )
    if g.wants(x):
        attrs = {**geometry, "x_shape": x.shape, "integer": node.op == "ConvInteger"}
        attrs["w_zero"] = node.attrs.get("w_zero", 0)
        g.give(x, g.emit("ConvInputGrad", [dy, w], attrs, name=f"d_{x.name}", source=node.source))


@adjoint("MatMul")
def matmul(g: Adjoint, node: Node, dy: Value) -> None:
    """y = A B.   dA = dy B^T;   dB = A^T dy, transposes taken into account."""
    a, b = node.inputs
    assert a is not None and b is not None
    ta, tb = bool(node.attrs["trans_a"]), bool(node.attrs["trans_b"])
    if g.wants(a):
        left, right = (b, dy) if ta else (dy, b)
        attrs = {"trans_a": ta and tb, "trans_b": ta or not tb}
        g.give(a, g.emit("MatMul", [left, right], attrs, name=f"d_{a.name}", source=node.source))
    if g.wants(b):
        left, right = (dy, a) if tb else (a, dy)
        attrs = {"trans_a": tb or not ta, "trans_b": ta and tb}
        g.give(b, g.emit("MatMul", [left, right], attrs, name=f"d_{b.name}", source=node.source))
