"""Adjoints of float arithmetic. A broadcast operand gets the sum over what it was broadcast along."""

from __future__ import annotations

from trainlet.ir import Node, Value
from trainlet.ir.ops.elementwise import UNARY
from trainlet.train.adjoint import Adjoint, adjoint


def _give_summed(g: Adjoint, node: Node, x: Value, d: Value) -> None:
    if d.shape != x.shape:
        d = g.emit("ReduceSum", [d], {"shape": x.shape}, name=f"d_{x.name}", source=node.source)
    g.give(x, d)


@adjoint("Add")
def add(g: Adjoint, node: Node, dy: Value) -> None:
    """y = a + b.   da = dy;   db = dy."""
    for x in node.operands():
        if g.wants(x):
            _give_summed(g, node, x, dy)


@adjoint("Sub")
def sub(g: Adjoint, node: Node, dy: Value) -> None:
    """y = a - b.   da = dy;   db = -dy."""
    a, b = node.inputs
    assert a is not None and b is not None
    if g.wants(a):
        _give_summed(g, node, a, dy)
    if g.wants(b):
        _give_summed(
            g, node, b, g.emit("Scale", [dy], {"factor": -1.0}, name=f"d_{b.name}.full", source=node.source)
        )


@adjoint("Mul")
def mul(g: Adjoint, node: Node, dy: Value) -> None:
    """y = a b.   da = dy b;   db = dy a."""
    a, b = node.inputs
    assert a is not None and b is not None
    for x, other in ((a, b), (b, a)):
        if g.wants(x):
            _give_summed(g, node, x, g.emit("Mul", [dy, other], name=f"d_{x.name}.full", source=node.source))


@adjoint("Clip")
def clip(g: Adjoint, node: Node, dy: Value) -> None:
    """y = clip(x, lo, hi).   dx = lo < x < hi ? dy : 0, from one bit an element."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        g.give(x, g.emit("MaskGrad", [dy, node.outputs[1]], name=f"d_{x.name}", source=node.source))


@adjoint(*UNARY)
def unary(g: Adjoint, node: Node, dy: Value) -> None:
    """y = f(x).   dx = dy f'(x), or through y where that is cheaper (Sigmoid, Tanh)."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        saved = node.output if UNARY[node.op][2] else x
        g.give(x, g.emit(f"{node.op}Grad", [dy, saved], node.attrs, name=f"d_{x.name}", source=node.source))


@adjoint("Scale")
def scale(g: Adjoint, node: Node, dy: Value) -> None:
    """y = factor x.   dx = factor dy."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        g.give(x, g.emit("Scale", [dy], node.attrs, name=f"d_{x.name}", source=node.source))


@adjoint("Softmax")
def softmax(g: Adjoint, node: Node, dy: Value) -> None:
    """y = softmax(x).   dx = y (dy - sum(dy y))."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        g.give(x, g.emit("SoftmaxGrad", [dy, node.output], name=f"d_{x.name}", source=node.source))


@adjoint("SoftmaxCrossEntropy", "SigmoidCrossEntropy", "MeanSquaredError")
def loss(g: Adjoint, node: Node, dy: Value) -> None:
    """The loss itself: its gradient op computes d loss / d logits, mean over the batch."""
    z, target = node.inputs
    if g.wants(z):
        assert z is not None
        g.give(z, g.emit(f"{node.op}Grad", [z, target], name=f"d_{z.name}", source=node.source))
