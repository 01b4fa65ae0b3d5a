"""The state of one export: which ONNX tensors hold each value, channels last ("plain") or channels first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.layout import channels_last
from trainlet.ir.graph import Graph, Node, Shape, Value
from trainlet.ir.ops import OPS, Call

Exporter = Callable[["Writer", Node], None]
EXPORTERS: dict[str, Exporter] = {}


def exporter(*ops: str) -> Callable[[Exporter], Exporter]:
    """Register the decorated function as what writes these ops of ours."""

    def register(function: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(ops, function))
        return function

    return register


def channels_first(rank: int) -> tuple[int, ...]:
    """The permutation (N, *S, C) -> (N, C, *S)."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


class Writer:
    """Collects ONNX nodes and initializers for `graph`.

    A value exists plain, channels first or both; the form an operator wants is made when it is asked for.
    `arrays` holds the contents of constants, of states, and of what follows from them alone.
    """

    def __init__(self, graph: Graph, state: Mapping[str, np.ndarray]) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        tensors = {**graph.constants, **graph.state}
        self.arrays = {k: _contents(graph, t.value, state.get(k, t.data)) for k, t in tensors.items()}
        self._names = {v.name for v in graph.values()}
        self._computed = self._names - set(tensors)
        self._forms: dict[tuple[str, bool], str] = {}

    def fresh(self, wanted: str) -> str:
        """`wanted`, or the first of wanted.1, wanted.2 … that no tensor has."""
        name, n = wanted, 0
        while name in self._names:
            n += 1
            name = f"{wanted}.{n}"
        self._names.add(name)
        return name

    def add(self, op: str, inputs: Sequence[str], wanted: str, **attrs: Any) -> str:
        """Append a node with one result, called `wanted` or like it; returns its name."""
        from onnx import helper

        name = self.fresh(wanted)
        self._computed.add(name)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attrs))
        return name

    def initializer(self, wanted: str, data: np.ndarray) -> str:
        """A tensor of the file with these contents, called `wanted` or like it; the same is written once."""
        name, n = wanted, 0
        while name in self._computed or not _identical(self.initializers.get(name, data), data):
            n += 1
            name = f"{wanted}.{n}"
        self._names.add(name)
        self.initializers[name] = np.ascontiguousarray(data).reshape(data.shape)
        return name

    def ints(self, wanted: str, values: Sequence[int]) -> str:
        """A list of integers as an operand."""
        return self.initializer(wanted, np.array(values, np.int64))

    def number(self, wanted: str, value: float, dtype: type[np.generic] = np.float32) -> str:
        """A scalar operand."""
        return self.initializer(wanted, np.array(value, dtype))

    def define(self, value: Value, name: str, first: bool = False) -> None:
        """ONNX tensor `name` holds `value`, channels first or plain."""
        self._forms[value.name, first and len(value.shape) > 2] = name

    def is_first(self, value: Value) -> bool:
        """Whether the value is already there channels first."""
        return (value.name, True) in self._forms

    def plain(self, value: Value) -> str:
        """The tensor that holds the value as the graph has it."""
        return self._form(value, False)

    def first(self, value: Value) -> str:
        """The tensor that holds the value channels first: (N, C, *S), or a weight (O, I, *K)."""
        return self._form(value, len(value.shape) > 2)

    def any(self, value: Value) -> tuple[str, bool]:
        """A tensor that holds the value without moving it, and whether it is channels first."""
        return self._form(value, self.is_first(value)), self.is_first(value)

    def _form(self, value: Value, first: bool) -> str:
        key = (value.name, first)
        rank = len(value.shape)
        if key not in self._forms and value.name in self.arrays:
            data = self.arrays[value.name]
            data = data.transpose(channels_first(rank)) if first else data
            self._forms[key] = self.initializer(value.name, data)
        elif key not in self._forms:
            perm = channels_first(rank) if first else channels_last(rank)
            wanted = f"{value.name}/{'first' if first else 'last'}"
            self._forms[key] = self.add("Transpose", [self._forms[value.name, not first]], wanted, perm=perm)
        return self._forms[key]

    def together(self, values: Sequence[Value], rank: int) -> tuple[list[str], bool]:
        """The operands in one layout, ready to be broadcast to `rank` dimensions; whether channels first."""
        computed = [v for v in values if v.name not in self.arrays]
        first = any(self.is_first(v) for v in computed) and all(len(v.shape) == rank for v in computed)
        if not first:
            return [self.plain(v) for v in values], False
        return [self.first(v) if v in computed else self.broadcast(v, rank, True) for v in values], True

    def broadcast(self, value: Value, rank: int, first: bool) -> str:
        """A constant as an operand of `rank` dimensions, in the layout of the others."""
        data = self.arrays[value.name]
        if not first:
            return self.plain(value)
        wide = data.reshape((1,) * (rank - data.ndim) + data.shape)
        return self.initializer(value.name, wide.transpose(channels_first(rank)))

    def evaluate(self, node: Node) -> bool:
        """Compute the node now if all its operands are known; whether it was."""
        if not all(v.name in self.arrays for v in node.operands()):
            return False
        args = tuple(None if v is None else self.arrays[v.name] for v in node.inputs)
        results = OPS[node.op].run(Call(node, args, np.float32, self.graph.scales))
        results = results if isinstance(results, tuple) else (results,)
        self.arrays |= {v.name: np.asarray(a) for v, a in zip(node.outputs, results, strict=False)}
        return True

    def forget(self, node: Node) -> None:
        """Free the names of the node's results, for the ONNX nodes that stand for it to take."""
        self._names -= {v.name for v in node.outputs}

    def rename(self, old: str, new: str) -> None:
        """Call a tensor that a node defines `new`; what had that name before gets another."""
        if old == new:
            return
        moved = {old: new, new: self.fresh(new)}
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [moved.get(n, n) for n in names]


def _identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


def _contents(graph: Graph, value: Value, data: np.ndarray) -> np.ndarray:
    array = np.asarray(data)
    if array.shape != value.shape:
        raise ModelError(f"{graph.name}: {value.name} was given {array.shape}, the network has {value.shape}")
    default = (graph.constants.get(value.name) or graph.state[value.name]).data
    return array.astype(default.dtype)


def spatial_ones(shape: Shape) -> bool:
    """Whether channels first and last store a tensor alike."""
    return max(shape[1:-1], default=1) == 1 or shape[-1] == 1
