"""Runs one op by itself: a graph of one node whose operands are inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir import GraphBuilder, Quant, interpret
from trainlet.ir.graph import Attrs, Value, dtype_of


def run(
    op: str,
    operands: Sequence[np.ndarray | None],
    attrs: Attrs | None = None,
    *,
    quants: Sequence[Quant | None] = (),
    result: Quant | None = None,
    outputs: int = 1,
    real: type[np.floating] = np.float64,
) -> list[np.ndarray]:
    """Results of `op`; `quants` belong to the operands, `result` to the first result."""
    b = GraphBuilder("one")
    values: list[Value | None] = []
    for i, array in enumerate(operands):
        quant = quants[i] if i < len(quants) else None
        values.append(None if array is None else b.input(f"i{i}", dtype_of(array), array.shape, quant))
    node = b.add_node(op, values, attrs, outputs=outputs, quant=result)
    feeds = {f"i{i}": array for i, array in enumerate(operands) if array is not None}
    return list(interpret(b.build(node.outputs), feeds, real=real).outputs)


def half_even(x: float) -> int:
    """Python's own rounding, independent of numpy's."""
    return round(float(x))


def saturate(x: int) -> int:
    return max(-128, min(127, x))
