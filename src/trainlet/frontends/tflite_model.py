"""A .tflite file as plain records: tensors with their quantization, operators with their options."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.ir.graph import Shape

MAGIC = b"TFL3"  # at byte 4
# What reading past the end of a damaged flatbuffer ends in.
_DAMAGE = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    KeyError,
    MemoryError,
)
_NUMPY = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True, eq=False)
class TfTensor:
    """One tensor. `data` is None unless it is constant; `scales` is empty unless it is quantized."""

    index: int
    name: str
    dtype: str  # as in the schema: "INT8"
    shape: Shape
    scales: np.ndarray
    zeros: np.ndarray
    data: np.ndarray | None

    @property
    def label(self) -> str:
        """The first of its names: a tensor of fused layers lists them all, separated by semicolons."""
        return self.name.split(";")[0] or self.name

    @property
    def quantized(self) -> bool:
        return self.dtype in ("INT8", "UINT8") and len(self.scales) > 0


@dataclass(frozen=True, eq=False)
class TfOperator:
    """One operator; an absent operand is None. `options` reads its options table field by field."""

    op: str  # as in the schema: "CONV_2D"
    inputs: tuple[TfTensor | None, ...]
    outputs: tuple[TfTensor, ...]
    options: Mapping[str, Any]
    source: str

    def input(self, i: int) -> TfTensor | None:
        """Operand i, None where it is absent."""
        return self.inputs[i] if i < len(self.inputs) else None

    @property
    def output(self) -> TfTensor:
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class TfModel:
    """The main subgraph of a file."""

    file: str
    inputs: tuple[TfTensor, ...]
    outputs: tuple[TfTensor, ...]
    operators: tuple[TfOperator, ...]

    def readers(self, tensor: TfTensor) -> list[TfOperator]:
        """The operators that read a tensor."""
        return [o for o in self.operators if any(t is not None and t.index == tensor.index for t in o.inputs)]


def is_tflite(path: Path) -> bool:
    """Whether the file says that it is a TensorFlow Lite model."""
    with path.open("rb") as file:
        return file.read(8)[4:] == MAGIC


def read_tflite(path: Path) -> TfModel:
    """The model in `path`. Raises ModelError: a truncated or damaged file, or `tflite` is missing."""
    try:
        import tflite
    except ImportError:
        raise ModelError(f"reading {path.name} needs a package: pip install 'trainlet[tflite]'") from None
    content = path.read_bytes()
    if content[4:8] != MAGIC:
        raise ModelError(f"{path.name} is no TensorFlow Lite model: copy or convert it again")
    try:
        reader = _Reader(tflite, content, path.name)
        model = reader.model()
    except _DAMAGE as error:
        raise ModelError(f"{path.name} is truncated or damaged ({error}): copy or convert it again") from None
    return model


class _Reader:
    def __init__(self, schema: Any, content: bytes, file: str) -> None:
        self.schema, self.content, self.file = schema, content, file
        self.root = schema.Model.GetRootAs(content)
        self.graph = self.root.Subgraphs(0)
        self.types = _names(schema.TensorType)
        self.codes = _names(schema.BuiltinOperator)
        self.options = _names(schema.BuiltinOptions)

    def model(self) -> TfModel:
        g = self.graph
        self.tensors = [self.tensor(i) for i in range(self.count(g.TensorsLength()))]
        operators = tuple(self.operator(g.Operators(i)) for i in range(self.count(g.OperatorsLength())))
        inputs = tuple(self.tensors[g.Inputs(i)] for i in range(self.count(g.InputsLength())))
        outputs = tuple(self.tensors[g.Outputs(i)] for i in range(self.count(g.OutputsLength())))
        return TfModel(self.file, inputs, outputs, operators)

    def count(self, length: int) -> int:
        """A vector's length, which a damaged file may make absurd."""
        if not 0 <= length <= len(self.content) // 4:
            raise ValueError(f"a list of {length} entries")
        return length

    def tensor(self, index: int) -> TfTensor:
        t = self.graph.Tensors(index)
        shape = tuple(int(t.Shape(i)) for i in range(self.count(t.ShapeLength())))
        q, dtype = t.Quantization(), self.types[t.Type()]
        scales = np.array(q.ScaleAsNumpy(), np.float32) if q and q.ScaleLength() else np.empty(0, np.float32)
        zeros = (
            np.array(q.ZeroPointAsNumpy(), np.int64) if q and q.ZeroPointLength() else np.zeros(len(scales))
        )
        name = (t.Name() or b"").decode("utf-8", "replace") or f"tensor{index}"
        return TfTensor(index, name, dtype, shape, scales, zeros.astype(np.int64), self.data(t, dtype, shape))

    def data(self, tensor: Any, dtype: str, shape: Shape) -> np.ndarray | None:
        if tensor.Buffer() == 0 or dtype not in _NUMPY:
            return None
        buffer = self.root.Buffers(tensor.Buffer())
        if buffer.Offset() > 1:  # models beyond 2 GB keep their data behind the flatbuffer
            raw = self.content[buffer.Offset() : buffer.Offset() + buffer.Size()]
        elif not buffer.DataLength():
            return None
        else:
            raw = bytes(buffer.DataAsNumpy())
        return np.frombuffer(raw, _NUMPY[dtype]).reshape(shape)

    def operator(self, o: Any) -> TfOperator:
        code = self.root.OperatorCodes(o.OpcodeIndex())
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self.codes[builtin]
        if name == "CUSTOM":
            name = f"CUSTOM {(code.CustomCode() or b'').decode('utf-8', 'replace')}".strip()
        inputs = tuple(self.maybe(o.Inputs(i)) for i in range(self.count(o.InputsLength())))
        outputs = tuple(self.tensors[o.Outputs(i)] for i in range(self.count(o.OutputsLength())))
        return TfOperator(name, inputs, outputs, self.table(o), f"{self.file}:{outputs[0].label}")

    def maybe(self, index: int) -> TfTensor | None:
        return None if index < 0 else self.tensors[index]

    def table(self, o: Any) -> dict[str, Any]:
        """Fields of the options table that are numbers or lists of numbers."""
        kind, union = self.options.get(o.BuiltinOptionsType(), "NONE"), o.BuiltinOptions()
        if kind == "NONE" or union is None:
            return {}
        table = getattr(self.schema, kind)()
        table.Init(union.Bytes, union.Pos)
        return dict(self.fields(table))

    def fields(self, table: Any) -> Iterator[tuple[str, Any]]:
        names = [n for n in dir(type(table)) if n[0].isupper() and not n.startswith(("GetRootAs", "Init"))]
        for name in names:
            if name.endswith(("AsNumpy", "IsNone", "HasIdentifier", "Length")):
                continue
            if hasattr(table, f"{name}Length"):
                length = self.count(getattr(table, f"{name}Length")())
                yield name, tuple(getattr(table, name)(i) for i in range(length))
            else:
                yield name, getattr(table, name)()


def _names(constants: type) -> dict[int, str]:
    """Value -> name of one of the schema's enumerations."""
    return {v: k for k, v in vars(constants).items() if isinstance(v, int) and not k.startswith("_")}
