"""Adjoints of normalization: the statistics depend on x, too."""

from __future__ import annotations

from trainlet.ir import Node, Value
from trainlet.train.adjoint import Adjoint, adjoint


@adjoint("LayerNormalization")
def layer_normalization(g: Adjoint, node: Node, dy: Value) -> None:
    """y = xhat gamma + beta by row.   dgamma = sum dy xhat;   dbeta = sum dy;   dx as in Ba et al."""
    x, gamma, beta = node.inputs[0], node.input(1), node.input(2)
    assert x is not None
    attrs = {"eps": node.attrs["eps"]}
    if g.wants(gamma):
        assert gamma is not None
        d = g.emit("LayerNormScaleGrad", [dy, x], attrs, name=f"d_{gamma.name}", source=node.source)
        g.give(gamma, d)
    if g.wants(beta):
        assert beta is not None
        g.give(beta, g.emit("BiasGrad", [dy], name=f"d_{beta.name}", source=node.source))
    if g.wants(x):
        operands = [dy, x, gamma]
        g.give(x, g.emit("LayerNormInputGrad", operands, attrs, name=f"d_{x.name}", source=node.source))


@adjoint("BatchNormTrain")
def batch_norm_train(g: Adjoint, node: Node, dy: Value) -> None:
    """y = xhat gamma + beta by channel, xhat = (x - batch mean) / batch sigma.

    dgamma = sum dy xhat;   dbeta = sum dy;   dx = gamma / sigma (dy - dbeta / n - xhat dgamma / n).
    """
    x, gamma, beta = node.inputs[:3]
    mean, rstd, name = node.outputs[3], node.outputs[4], node.output.name
    assert x is not None
    sums = [dy, x, mean, rstd]
    d_gamma = g.emit("BatchNormScaleGrad", sums, name=f"d_{name}.gamma", source=node.source)
    d_beta = g.emit("BiasGrad", [dy], name=f"d_{name}.beta", source=node.source)
    if g.wants(gamma):
        g.give(gamma, d_gamma)
    if g.wants(beta):
        g.give(beta, d_beta)
    if g.wants(x):
        operands = [dy, x, gamma, mean, rstd, d_gamma, d_beta]
        g.give(x, g.emit("BatchNormInputGrad", operands, name=f"d_{x.name}", source=node.source))
