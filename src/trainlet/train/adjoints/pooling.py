"""Adjoints of pools; the gradient of an int8 pool is with respect to the integers."""

from __future__ import annotations

import numpy as np

from trainlet.ir import Node, Value
from trainlet.ir.ops.pooling import POOL
from trainlet.train.adjoint import Adjoint, adjoint, constant_scale


@adjoint("AveragePool")
def average_pool(g: Adjoint, node: Node, dy: Value) -> None:
    """y = mean over a window.   dx: dy / count to each element of a window, times sx / sy if rescaled."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        if node.attrs["rounding"] == "rescaled":
            factor = {"factor": float(np.float32(constant_scale(g, x) / constant_scale(g, node.output)))}
            dy = g.emit("Scale", [dy], factor, name=f"d_{node.output.name}.rescaled", source=node.source)
        attrs = {**{k: node.attrs[k] for k in POOL}, "x_shape": x.shape}
        g.give(x, g.emit("AveragePoolGrad", [dy], attrs, name=f"d_{x.name}", source=node.source))


@adjoint("MaxPool")
def max_pool(g: Adjoint, node: Node, dy: Value) -> None:
    """y = max over a window.   dx: the first largest element gets dy."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        attrs = {**node.attrs, "x_shape": x.shape}
        g.give(x, g.emit("MaxPoolGrad", [dy, x], attrs, name=f"d_{x.name}", source=node.source))
