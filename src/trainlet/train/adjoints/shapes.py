"""Adjoints of moving elements: the move back."""

from __future__ import annotations

from trainlet.ir import Node, Value
from trainlet.train.adjoint import Adjoint, adjoint


@adjoint("Reshape")
def reshape(g: Adjoint, node: Node, dy: Value) -> None:
    """y = reshape(x).   dx = reshape(dy)."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        g.give(x, g.emit("Reshape", [dy], {"shape": x.shape}, name=f"d_{x.name}", source=node.source))


@adjoint("Transpose")
def transpose(g: Adjoint, node: Node, dy: Value) -> None:
    """y = transpose(x, perm).   dx = transpose(dy, inverse perm)."""
    x, perm = node.inputs[0], tuple(node.attrs["perm"])  # type: ignore[arg-type]
    if g.wants(x):
        assert x is not None
        inverse = tuple(perm.index(i) for i in range(len(perm)))
        g.give(x, g.emit("Transpose", [dy], {"perm": inverse}, name=f"d_{x.name}", source=node.source))


@adjoint("Concat")
def concat(g: Adjoint, node: Node, dy: Value) -> None:
    """y = concat(x0, x1, …).   dxi = the slice of dy that xi became."""
    axis, at = int(node.attrs["axis"]), 0  # type: ignore[arg-type]
    for x in node.operands():
        if g.wants(x):
            starts = tuple(at if i == axis else 0 for i in range(len(x.shape)))
            attrs = {"starts": starts, "sizes": x.shape}
            g.give(x, g.emit("Slice", [dy], attrs, name=f"d_{x.name}", source=node.source))
        at += x.shape[axis]


@adjoint("Pad")
def pad(g: Adjoint, node: Node, dy: Value) -> None:
    """y = pad(x).   dx = the middle of dy."""
    x, pads = node.inputs[0], tuple(node.attrs["pads"])  # type: ignore[arg-type]
    if g.wants(x):
        assert x is not None
        attrs = {"starts": pads[: len(x.shape)], "sizes": x.shape}
        g.give(x, g.emit("Slice", [dy], attrs, name=f"d_{x.name}", source=node.source))


@adjoint("Slice")
def slice_(g: Adjoint, node: Node, dy: Value) -> None:
    """y = a block of x.   dx = dy padded with zeros."""
    x, starts = node.inputs[0], tuple(node.attrs["starts"])  # type: ignore[arg-type]
    if g.wants(x):
        assert x is not None
        ends = tuple(d - a - b for d, a, b in zip(x.shape, starts, dy.shape, strict=True))
        g.give(x, g.emit("Pad", [dy], {"pads": starts + ends}, name=f"d_{x.name}", source=node.source))


@adjoint("Expand")
def expand(g: Adjoint, node: Node, dy: Value) -> None:
    """y = x repeated.   dx = dy summed over the repetitions."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        g.give(x, g.emit("ReduceSum", [dy], {"shape": x.shape}, name=f"d_{x.name}", source=node.source))


@adjoint("ReduceSum")
def reduce_sum(g: Adjoint, node: Node, dy: Value) -> None:
    """y = sum of x to a shape.   dx = dy broadcast: added to zeros of x's shape."""
    x = node.inputs[0]
    if g.wants(x):
        assert x is not None
        zeros = g.emit("Fill", [x], name=f"d_{x.name}.zeros", source=node.source)
        g.give(x, g.emit("Add", [zeros, dy], name=f"d_{x.name}", source=node.source))
