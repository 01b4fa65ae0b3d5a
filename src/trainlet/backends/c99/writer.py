"""How a node is written as a kernel call: a table of ops, and the expressions that calls are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from trainlet.errors import BackendError
from trainlet.ir import Node, Value
from trainlet.ir.ops.window import Window
from trainlet.plan.program import Location

C_TYPES = {
    "f32": "float",
    "s8": "int8_t",
    "u8": "uint8_t",
    "u16": "uint16_t",
    "s32": "int32_t",
    "u32": "uint32_t",
    "u1": "uint8_t",
}
HOST_LANES, BOARD_LANES = 16, 4  # TL_LANES of tl_types.h: 64-bit processors, and all others
VECTOR_SCRATCH_BYTES = 256  # TL_BIAS_GRAD_SCRATCH_BYTES, TL_APPLY_SCRATCH_BYTES


@dataclass(frozen=True)
class Kernel:
    """How one op is called, and the scratch its kernel needs."""

    write: Callable[[Writer, Node], Iterable[str]]
    scratch: Callable[[Node, int], int]


KERNELS: dict[str, Kernel] = {}
Scratch = Callable[[Node, int], int]
Write = Callable[["Writer", Node], Iterable[str]]


def kernel(*ops: str, scratch: Scratch = lambda node, lanes: 0) -> Callable[[Write], Write]:
    """Register the decorated function as the writer of `ops`: it yields C statements."""

    def register(write: Write) -> Write:
        KERNELS.update({op: Kernel(write, scratch) for op in ops})
        return write

    return register


def scratch_bytes(node: Node, lanes: int = HOST_LANES) -> int:
    """Scratch of the kernel behind a node, built with TL_LANES = lanes. Raises BackendError without one."""
    if node.op not in KERNELS:
        raise BackendError(f"{node.op} at {node.source or node.output.name} has no C kernel")
    return KERNELS[node.op].scratch(node, lanes)


def conv_scratch_bytes(lanes: int) -> int:
    """TL_CONV_SCRATCH_BYTES of tl_types.h: every dense kernel's."""
    return 4096 if lanes > BOARD_LANES else 2048


def identifier(text: str) -> str:
    """A C identifier that resembles `text`."""
    name = re.sub(r"\W", "_", text)
    return name if name[:1].isalpha() else f"m_{name}"


def number(x: float) -> str:
    """A float constant that reads back as the same float32."""
    if math.isinf(x):
        return "TL_INFINITY" if x > 0 else "-TL_INFINITY"
    text = f"{float(np.float32(x)):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


@dataclass
class Writer:
    """Expressions for the values of one function. Shapes are declared once per file in `shapes`."""

    locations: Mapping[str, Location]
    constants: Mapping[str, str]  # constant -> its C identifier
    scales: Callable[[Value], np.ndarray]
    shapes: dict[str, str] = field(default_factory=dict)  # initializer -> identifier

    def ptr(self, value: Value | None) -> str:
        """A pointer to a value, of its C type; NULL where absent."""
        if value is None:
            return "NULL"
        where = self.locations[value.name]
        if where.memory == "flash":
            return self.constants[value.name]
        if where.memory == "argument":
            return identifier(value.name)
        if where.memory == "caller":
            return f"((const {C_TYPES[value.dtype]} *)sample)"
        if where.memory == "rows":
            raise BackendError(f"{value.name} comes by rows: only a chain that is streamed can read it")
        return f"{where.memory.upper()}({C_TYPES[value.dtype]}, {where.offset})"

    def shape(self, s: Window) -> str:
        """The address of a tl_conv_shape."""
        fields = (
            s.n,
            s.h,
            s.w,
            s.c,
            s.oh,
            s.ow,
            s.o,
            s.kh,
            s.kw,
            s.sh,
            s.sw,
            s.pt,
            s.pl,
            s.dh,
            s.dw,
            s.groups,
        )
        text = ", ".join(map(str, fields))
        return "&" + self.shapes.setdefault(text, f"shape_{len(self.shapes)}")

    def zero(self, value: Value | None) -> int:
        """Zero point, 0 where the value is not quantized."""
        return value.quant.zero_point if value is not None and value.quant is not None else 0

    def scale(self, value: Value) -> float:
        """Per-tensor scale."""
        return float(self.scales(value))

    def same(self, a: Value, b: Value) -> bool:
        """Whether two values lie in the same memory."""
        return self.locations[a.name] == self.locations[b.name]


def mask(node: Node) -> Value | None:
    """The second result of a node, a clamp mask, if it is wanted."""
    return node.outputs[1] if len(node.outputs) > 1 else None


def dims4(shape: tuple[int, ...], node: Node, fill: int = 1) -> list[int]:
    """A shape padded in front to four dimensions. Raises BackendError beyond four."""
    if len(shape) > 4:
        raise BackendError(f"{node.op} at {node.source or node.output.name}: more than 4 dimensions {shape}")
    return [fill] * (4 - len(shape)) + list(shape)


def braces(values: Iterable[object]) -> str:
    """A C initializer list."""
    return "{" + ", ".join(str(v) for v in values) + "}"
