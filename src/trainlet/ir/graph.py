"""The one IR: an immutable graph in static single assignment form.

Activations are NHWC (N, *spatial, C), convolution weights OHWI (O, *kernel, C / groups), labels (N,).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from trainlet.errors import GraphError

Shape = tuple[int, ...]
Attr = int | float | str | bool | tuple[int, ...] | tuple[float, ...]
Attrs = Mapping[str, Any]  # of Attr; the op table says which

# dtype -> (numpy dtype, bits an element). "u1" is a clamp mask: one bit an element, packed.
DTYPES: dict[str, tuple[type[np.generic], int]] = {
    "f32": (np.float32, 32),
    "s8": (np.int8, 8),
    "u8": (np.uint8, 8),
    "u16": (np.uint16, 16),
    "s16": (np.int16, 16),
    "s32": (np.int32, 32),
    "u32": (np.uint32, 32),
    "u1": (np.bool_, 1),
}
PLACES = ("caller", "rows")  # of an input, other than the arena
_NAME = re.compile(r"[A-Za-z0-9_./\-]+")


@dataclass(frozen=True, slots=True)
class Quant:
    """real = scale * (integer - zero_point). A string scale names the constant that holds one scale
    per index of `axis` (weights: per output channel)."""

    scale: float | str
    zero_point: int = 0
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor: a name unique in its graph, an element type, a static shape."""

    name: str
    dtype: str
    shape: Shape
    quant: Quant | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in memory; masks are packed eight elements a byte."""
        return (self.size * DTYPES[self.dtype][1] + 7) // 8


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A value whose contents are known: a constant, or the initial value of a state."""

    value: Value
    data: np.ndarray

    def __eq__(self, other: object) -> bool:
        """Same type and same bits (numpy's own == is one answer an element)."""
        if not isinstance(other, Tensor):
            return NotImplemented
        same = self.value == other.value and self.data.dtype == other.data.dtype
        return same and self.data.shape == other.data.shape and self.data.tobytes() == other.data.tobytes()

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `source` is the user's name for it ("model.onnx:/features/3/conv")."""

    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attrs: Attrs
    source: str = ""

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def input(self, index: int) -> Value | None:
        """The operand at `index`, None where an optional operand is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def operands(self) -> Iterator[Value]:
        """The operands that are present."""
        return (v for v in self.inputs if v is not None)


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order. `updates` maps a state to the value it has after one execution.

    `placed`: inputs that take no memory of the plan, by name. "caller": stays where the caller has it, and is
    only read. "rows": comes by rows and never exists whole; only a StreamRows with `by_rows` can read it.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    updates: Mapping[str, Value] = field(default_factory=dict)
    placed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("constants", "state", "updates", "placed"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __deepcopy__(self, memo: object) -> Graph:
        return self  # immutable: a copy would be equal for ever

    def producers(self) -> dict[str, Node]:
        """Value name -> the node that defines it."""
        return {out.name: node for node in self.nodes for out in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Value name -> the nodes that read it, each once, in execution order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(v.name for v in node.operands()):
                readers.setdefault(name, []).append(node)
        return readers

    def values(self) -> Iterator[Value]:
        """Every value, in order of definition."""
        yield from self.inputs
        yield from (t.value for t in self.constants.values())
        yield from (t.value for t in self.state.values())
        for node in self.nodes:
            yield from node.outputs

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The same graph with other nodes; constants and states nothing reads any more are dropped."""
        nodes = tuple(nodes)
        used = {v.name for node in nodes for v in node.operands()}
        used |= {v.name for v in (*self.outputs, *self.updates.values())}
        scales = [t.value.quant for t in self.constants.values() if t.value.name in used]
        scales += [v.quant for node in nodes for v in node.outputs]
        used |= {q.scale for q in scales if q is not None and isinstance(q.scale, str)}
        return replace(
            self,
            nodes=nodes,
            constants={k: t for k, t in self.constants.items() if k in used},
            state={k: t for k, t in self.state.items() if k in used or k in self.updates},
        )

    def scales(self, value: Value) -> np.ndarray:
        """float32 scales of a quantized value: shape () or (size of its axis,)."""
        if value.quant is None:
            raise GraphError(f"{self.name}: value {value.name} is not quantized")
        if isinstance(value.quant.scale, str):
            return self.constants[value.quant.scale].data.astype(np.float32)
        return np.asarray(value.quant.scale, np.float32)


def legal_name(text: str) -> str:
    """`text` with every character that the text form cannot hold replaced by "_"."""
    return "".join(_NAME.findall(re.sub(r"[^A-Za-z0-9_./\-]", "_", text))) or "_"


class GraphBuilder:
    """Builds a Graph front to back; every node's result shape comes from the op table.

    Raises GraphError naming `source` where operands or attributes break the op's rules.
    """

    def __init__(self, name: str, base: Graph | None = None) -> None:
        self.name = legal_name(name)
        self.inputs: list[Value] = list(base.inputs) if base else []
        self.nodes: list[Node] = list(base.nodes) if base else []
        self.constants: dict[str, Tensor] = dict(base.constants) if base else {}
        self.state: dict[str, Tensor] = dict(base.state) if base else {}
        self.updates: dict[str, Value] = dict(base.updates) if base else {}
        self._names = {v.name for v in base.values()} if base else set()

    def fresh(self, wanted: str) -> str:
        """`wanted`, or the first of wanted.1, wanted.2 … not yet taken."""
        name, n = (wanted := legal_name(wanted)), 0
        while name in self._names:
            n += 1
            name = f"{wanted}.{n}"
        self._names.add(name)
        return name

    def input(self, name: str, dtype: str, shape: Sequence[int], quant: Quant | None = None) -> Value:
        value = Value(self.fresh(name), dtype, tuple(int(d) for d in shape), quant)
        self.inputs.append(value)
        return value

    def constant(self, name: str, data: Any, dtype: str | None = None, quant: Quant | None = None) -> Value:
        tensor = self._tensor(name, data, dtype, quant)
        self.constants[tensor.value.name] = tensor
        return tensor.value

    def parameter(self, name: str, data: Any, dtype: str | None = None, quant: Quant | None = None) -> Value:
        """A state: lives in RAM from one execution to the next, starts as `data`."""
        tensor = self._tensor(name, data, dtype, quant)
        self.state[tensor.value.name] = tensor
        return tensor.value

    def _tensor(self, name: str, data: Any, dtype: str | None, quant: Quant | None) -> Tensor:
        array = np.asarray(data)
        dtype = dtype or dtype_of(array)
        array = np.ascontiguousarray(array, dtype=DTYPES[dtype][0]).reshape(array.shape)
        return Tensor(Value(self.fresh(name), dtype, array.shape, quant), array)

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Attrs | None = None,
        *,
        name: str | None = None,
        names: Sequence[str] = (),
        source: str = "",
        outputs: int = 1,
        quant: Quant | None = None,
    ) -> Value:
        """Append a node and return its first result (`add_node` for all of them).

        `outputs` says how many of the op's results are wanted; `quant` is given to the first.
        """
        return self.add_node(
            op, inputs, attrs, name=name, names=names, source=source, outputs=outputs, quant=quant
        ).outputs[0]

    def add_node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Attrs | None = None,
        *,
        name: str | None = None,
        names: Sequence[str] = (),
        source: str = "",
        outputs: int = 1,
        quant: Quant | None = None,
    ) -> Node:
        from trainlet.ir.ops import infer_node

        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        attrs, results = infer_node(op, tuple(inputs), dict(attrs or {}), source, outputs)
        wanted = list(names) or [name or f"{op.lower()}"]
        wanted += [f"{wanted[0]}.{i}" for i in range(len(wanted), outputs)]
        outs = tuple(
            Value(self.fresh(w), dtype, shape, quant if i == 0 else None)
            for i, (w, (dtype, shape)) in enumerate(zip(wanted, results, strict=True))
        )
        node = Node(op, tuple(inputs), outs, MappingProxyType(attrs), source)
        self.nodes.append(node)
        return node

    def build(self, outputs: Sequence[Value]) -> Graph:
        """The finished graph; constants nothing reads are dropped. Verified."""
        from trainlet.ir.verify import verify

        graph = Graph(
            self.name, tuple(self.inputs), tuple(outputs), (), self.constants, self.state, self.updates
        )
        return verify(graph.with_nodes(self.nodes))


def dtype_of(array: np.ndarray) -> str:
    """The IR's dtype for an array; float64 and int64 become f32 and s32."""
    kinds: dict[np.dtype[Any], str] = {np.dtype(t): name for name, (t, _) in DTYPES.items()}
    kinds |= {np.dtype(np.float64): "f32", np.dtype(np.int64): "s32"}
    if array.dtype not in kinds:
        raise GraphError(f"no dtype in the IR for numpy {array.dtype}")
    return kinds[array.dtype]
