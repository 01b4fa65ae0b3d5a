"""The op table: for every op its shape rule, its attributes, numpy semantics, cost and aliasing.

An op is one `@op(...)` function. The rest of trainlet asks the table and never lists ops itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainlet.errors import GraphError
from trainlet.ir.graph import Attr, Attrs, Node, Shape, Value

Result = tuple[str, Shape]  # dtype and shape of one output
Infer = Callable[[Sequence[Value | None], Attrs], Sequence[Result]]
REQUIRED: Any = object()


@dataclass(frozen=True)
class Call:
    """One execution of a node in the interpreter: operand arrays, attributes, scales.

    `real` is the floating-point type to compute in (float32, or float64 to check gradients).
    """

    node: Node
    inputs: Sequence[np.ndarray | None]
    real: type[np.floating[Any]]
    scales: Callable[[Value], np.ndarray]

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def attrs(self) -> Attrs:
        return self.node.attrs

    def zero(self, index: int) -> int:
        """Zero point of operand `index`, 0 where it is not quantized."""
        value = self.node.input(index)
        return value.quant.zero_point if value is not None and value.quant is not None else 0

    def scale(self, index: int) -> np.float32:
        """float32 scale of operand `index` (per tensor)."""
        value = self.node.inputs[index]
        assert value is not None
        return np.float32(self.scales(value))


@dataclass(frozen=True)
class Op:
    """One row of the table. `inplace`: output index -> operands whose memory it may take over, those
    for which `inplace_fits(node, operand)`.
    `view`: the result is the operand's bytes under another shape."""

    name: str
    infer: Infer
    run: Callable[[Call], Any]
    operands: tuple[int, int]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    macs: Callable[[Node], int] = lambda node: 0
    inplace: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    view: bool = False
    inplace_fits: Callable[[Node, int], bool] = lambda node, operand: True


OPS: dict[str, Op] = {}


def op(
    name: str,
    infer: Infer,
    operands: int | tuple[int, int],
    attrs: Attrs | None = None,
    *,
    macs: Callable[[Node], int] = lambda node: 0,
    inplace: Mapping[int, tuple[int, ...]] | None = None,
    view: bool = False,
    inplace_fits: Callable[[Node, int], bool] = lambda node, operand: True,
) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Register the decorated numpy function as the semantics of `name`."""
    counts = (operands, operands) if isinstance(operands, int) else operands

    def register(run: Callable[[Call], Any]) -> Callable[[Call], Any]:
        if name in OPS:
            raise GraphError(f"op {name} is registered twice")
        OPS[name] = Op(name, infer, run, counts, attrs or {}, macs, inplace or {}, view, inplace_fits)
        return run

    return register


def infer_node(
    name: str, inputs: Sequence[Value | None], attrs: Attrs, source: str, outputs: int
) -> tuple[dict[str, Attr], list[Result]]:
    """Attributes with defaults filled in, and dtype and shape of the first `outputs` results.

    Raises GraphError naming `source` when the op, its operands or its attributes are wrong.
    """
    where = f"{name} at {source}" if source else name
    if name not in OPS:
        raise GraphError(f"{where}: no such op")
    row = OPS[name]
    low, high = row.operands
    if not low <= len(inputs) <= high:
        raise GraphError(f"{where}: takes {low} to {high} operands, got {len(inputs)}")
    operand = attrs.get("inplace")  # any op that allows it may overwrite an operand with its first result
    if operand is not None and operand not in row.inplace.get(0, ()):
        raise GraphError(f"{where}: cannot overwrite operand {operand}")
    if unknown := set(attrs) - set(row.attrs) - {"inplace"}:
        raise GraphError(f"{where}: unknown attribute {', '.join(sorted(unknown))}")
    full = {**row.attrs, **attrs}
    if missing := [k for k, v in full.items() if v is REQUIRED]:
        raise GraphError(f"{where}: attribute {', '.join(missing)} is required")
    try:
        results = list(row.infer(inputs, full))
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None
    if outputs > len(results):
        raise GraphError(f"{where}: has {len(results)} results, {outputs} wanted")
    return full, results[:outputs]


def check(condition: bool, message: str) -> None:
    """Raise GraphError(message) unless the condition holds; `infer_node` adds the place."""
    if not condition:
        raise GraphError(message)


def same(*indices: int) -> Infer:
    """The result looks like operand indices[0]; the others must have its shape."""

    def infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
        first = inputs[indices[0]]
        assert first is not None
        for i in indices[1:]:
            other = inputs[i]
            check(
                other is not None and other.shape == first.shape,
                f"operand shapes differ: {first.shape} and {other and other.shape}",
            )
        return [(first.dtype, first.shape)]

    return infer


def with_mask(infer: Infer) -> Infer:
    """The same result, then optionally a clamp mask of its shape: 1 where a gradient passes."""

    def both(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
        results = list(infer(inputs, attrs))
        return [*results, ("u1", results[0][1])]

    return both
