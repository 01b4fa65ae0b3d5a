"""The state of one import: what is known of each tensor, and the moves that bring it into place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.layout import Order, Placed, order_of, permutation, split
from trainlet.frontends.network import Layer, Network
from trainlet.frontends.stored import StoredLayer
from trainlet.ir.graph import Attrs, GraphBuilder, Shape, Value


class Unsupported(Exception):
    """A layer that trainlet cannot represent; the text says why and what to do instead."""


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor known at import: an initializer under its name, or folded from some."""

    name: str
    data: np.ndarray

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)


Operand = Const | Placed
Importer = Callable[["Import", Layer], None]
IMPORTERS: dict[str, Importer] = {}


def importer(*ops: str) -> Callable[[Importer], Importer]:
    """Register the decorated function as what reads these operators."""

    def register(function: Importer) -> Importer:
        IMPORTERS.update(dict.fromkeys(ops, function))
        return function

    return register


class Import:
    """Builds a graph from `model`, one layer after another.

    `known` maps a tensor's name to what it is; `skipped` holds layers that an earlier one took in.
    """

    def __init__(self, model: Network, name: str) -> None:
        self.model = model
        self.builder = GraphBuilder(name)
        self.known: dict[str, Operand] = {n: Const(n, a) for n, a in model.initializers.items()}
        self.skipped: set[Layer] = set()
        self.absorbed_pads: dict[str, tuple[int, ...]] = {}  # a Pad's result -> the pads its reader adds
        self.stored: list[StoredLayer] = []
        self.source = ""
        self._readers: dict[str, list[Layer]] = {}
        self._constants: dict[str, list[tuple[np.ndarray, Value]]] = {}
        self._moved: dict[tuple[str, str, Shape], Value] = {}
        for layer in model.layers:
            for operand in layer.inputs:
                self._readers.setdefault(operand, []).append(layer)

    def only_reader(self, name: str) -> Layer | None:
        """The layer that alone reads tensor `name`, None where there are several or it is the output."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name != self.model.output else None

    def reads(self, name: str) -> bool:
        """Whether any layer reads tensor `name`, or it is the model's output."""
        return bool(name) and (name in self._readers or name == self.model.output)

    def operand(self, layer: Layer, index: int) -> Operand:
        """Operand `index` of the layer. Raises ModelError where nothing defines it."""
        name = layer.input(index)
        if name not in self.known:
            raise ModelError(f"{layer.source}: reads {name or f'operand {index}'}, which nothing defines")
        return self.known[name]

    def array(self, layer: Layer, index: int, what: str) -> Const:
        """Operand `index`, which must be known now. Raises Unsupported naming `what` where it is not."""
        operand = self.operand(layer, index)
        if isinstance(operand, Placed):
            raise Unsupported(f"its {what} is computed by the network; make it a constant")
        return operand

    def integers(self, layer: Layer, index: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older opsets give as an attribute and newer ones as an operand, None if absent."""
        if attribute in layer.attrs:
            return tuple(int(v) for v in layer.attrs[attribute])
        if not layer.input(index):
            return None
        return tuple(int(v) for v in self.array(layer, index, attribute).data.reshape(-1))

    def placed(self, layer: Layer, index: int) -> Placed:
        """Operand `index` as a tensor of the graph; a known one becomes a constant in the user's layout."""
        operand = self.operand(layer, index)
        if isinstance(operand, Placed):
            return operand
        return Placed(self.constant(operand.name, operand.data), operand.shape, order_of(operand.shape))

    def constant(self, name: str, data: np.ndarray) -> Value:
        """A float constant under the user's name; the same contents are stored once."""
        data = np.asarray(data, np.float32)
        if not np.isfinite(data).all():
            raise ModelError(f"{self.source}: constant {name} has NaN or infinite elements")
        for array, value in self._constants.setdefault(name, []):
            if array.shape == data.shape and np.array_equal(array, data):
                return value
        value = self.builder.constant(name, data)
        self._constants[name].append((data, value))
        return value

    def is_given(self, const: Const) -> bool:
        """Whether `const` is one of the model's own tensors, as it came."""
        return const.data is self.model.initializers.get(const.name)

    def emit(
        self, op: str, inputs: Sequence[Value | None], attrs: Attrs | None = None, name: str | None = None
    ) -> Value:
        """Append a node that stands for the layer at hand."""
        return self.builder.add(op, inputs, attrs, name=name, source=self.source)

    def define(self, name: str, value: Value, shape: Shape, perm: Sequence[int] | None = None) -> None:
        """The model's tensor `name` of `shape` is `value`, stored in the order `perm` of its dimensions."""
        self.known[name] = Placed(value, tuple(shape), order_of(tuple(shape), perm))

    def arrange(self, operand: Operand, perm: Sequence[int]) -> Value:
        """The operand with dimension i = the user's dimension perm[i], moved only where it has to be."""
        shape = tuple(operand.shape[p] for p in perm)
        if isinstance(operand, Const):
            return self.constant(operand.name, operand.data.transpose(perm))
        value = operand.value
        if (want := order_of(operand.shape, perm)) != operand.order:
            now = permutation(operand.order, operand.shape)
            if now is not None and value.shape == tuple(operand.shape[p] for p in now):
                value = self._move("Transpose", value, tuple(now.index(p) for p in perm))
            else:
                value = self._reorder(value, operand.order, want, operand.shape)
        return self.reshaped(value, shape)

    def reshaped(self, value: Value, shape: Shape) -> Value:
        """The same elements in the same order under `shape`."""
        return value if value.shape == tuple(shape) else self._move("Reshape", value, tuple(shape))

    def _reorder(self, value: Value, now: Order, want: Order, shape: Shape) -> Value:
        """`value` stored in order `want` instead of `now`: one Transpose of as few dimensions as possible."""
        cuts = {edge for size, stride in (*now, *want) for edge in (stride, size * stride)}
        source, target = split(now, cuts), split(want, cuts)
        if source is None or target is None or set(source) != set(target):
            value = self._reorder(value, now, order_of(shape), shape)
            return self._reorder(value, order_of(shape), want, shape)
        value = self.reshaped(value, tuple(size for size, _ in source))
        return self._move("Transpose", value, tuple(source.index(digit) for digit in target))

    def _move(self, op: str, value: Value, argument: Shape) -> Value:
        key = (op, value.name, argument)
        if key not in self._moved:
            attribute = {"Transpose": "perm", "Reshape": "shape"}[op]
            name = f"{value.name}/{op.lower()}"
            self._moved[key] = self.emit(op, [value], {attribute: argument}, name)
        return self._moved[key]
