"""What every frontend of float models hands on: a network in the vocabulary of ONNX's operators.

ONNX files are this already; PyTorch's ATen and JAX's primitives are few enough to be said in it. One set of
importers (`importing.py`) then turns it into a Graph, channels last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.ir.graph import Shape


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator. `source` is what errors call it; `line` is where it stands in the user's program, if it
    came from one; `proto` (ONNX) is kept to evaluate it on constants."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    source: str
    proto: Any = None
    line: str = ""

    @property
    def output(self) -> str:
        return self.outputs[0]

    def input(self, index: int) -> str:
        """Name of the operand at `index`, "" where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Network:
    """A network read from `file`: layers in execution order that lead from `input` to `output`."""

    file: str
    opset: int
    input: str
    input_shape: Shape
    output: str
    layers: tuple[Layer, ...]
    initializers: Mapping[str, np.ndarray]


def reachable(layers: list[Layer], output: str) -> tuple[Layer, ...]:
    """The layers that `output` depends on, in their order."""
    needed, kept = {output}, []
    for layer in reversed(layers):
        if needed & set(layer.outputs):
            kept.append(layer)
            needed |= set(layer.inputs)
    return tuple(reversed(kept))
