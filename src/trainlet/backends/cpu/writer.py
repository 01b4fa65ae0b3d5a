"""How a node becomes kernel calls of the CPU backend: a table over that of c99.

A row says which nodes it takes; what no row takes goes to the portable kernel of c99, on one thread.
`falls_back` says which nodes these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from trainlet.backends.c99.writer import KERNELS as PORTABLE
from trainlet.backends.c99.writer import Writer, number
from trainlet.backends.c99.writer import scratch_bytes as portable_scratch_bytes
from trainlet.backends.cpu.choices import step_key
from trainlet.backends.cpu.fuse import Ending
from trainlet.backends.cpu.target import ALIGNMENT, Target
from trainlet.backends.cpu.weights import Blob, padded
from trainlet.ir import Node, Value

GRAIN = 24  # rows of a product that stay together (tl_gemm.h)
SMALL_MACS = 60_000  # below, waking a second thread costs more than it saves
SMALL_ELEMENTS = 32_768
CHUNKS = 4  # TL_CHUNKS of tl_chunks.h


@dataclass
class CpuWriter(Writer):
    """Expressions for one function, with the blob of weights, the target and the fusions found (fuse.py)."""

    target: Target = field(default_factory=lambda: Target("x86-64"))
    blob: Blob = field(default_factory=lambda: Blob({}))
    ending: Ending = field(default_factory=Ending)
    first_step: int = 0  # number of this function's first step in a profile
    step: int = 0  # the same of the node being written
    key: str = ""  # its step_key
    used_bytes: int = 0  # of scratch, by the node being written
    most_bytes: int = 0  # by any node so far

    def start(self, ending: Ending, node: Node, index: int) -> None:
        """Before each node: `index` is its place in the function."""
        self.ending, self.used_bytes, self.step = ending, 0, self.first_step + index
        packed = len(node.inputs) > 1 and self.frozen(node.inputs[1])
        self.key = step_key(node, packed, self.target.threads)

    def pick(self, question: str, default: bool) -> bool:
        """A question of choices.py about the node being written."""
        return self.target.choices.pick(question, self.key, default, self.step)

    def scratch(self, floats: int) -> str:
        """A piece of scratch of this node, 64-byte aligned."""
        at, self.used_bytes = self.used_bytes, self.used_bytes + padded(4 * floats, ALIGNMENT)
        return f"SCRATCH({at})"

    def frozen(self, value: Value | None) -> bool:
        return value is not None and self.locations[value.name].memory == "flash"

    def parts(self, macs: int) -> int:
        """Threads for a kernel of that many multiply-accumulates."""
        return self._threads(macs >= SMALL_MACS)

    def elements_parts(self, count: int) -> int:
        """Threads for a kernel that reads that many elements once."""
        return self._threads(count >= SMALL_ELEMENTS)

    def _threads(self, default: bool) -> int:
        threads = self.target.threads
        return threads if threads > 1 and self.pick("threads", default) else 1

    def finish(self, bias: Value | None = None, lo: float = float("-inf"), hi: float = float("inf")) -> str:
        """Initializer of a tl_finish: this node's bias, and what was fused behind it."""
        e = self.ending
        lo, hi = (e.lo, e.hi) if e.clips else (lo, hi)
        fields = {"bias": bias, "add": e.add, "mask": e.mask, "keep": e.keep}
        given = [f".{k} = {self.ptr(v)}" for k, v in fields.items() if v is not None]
        return "{" + ", ".join([*given, f".lo = {number(lo)}", f".hi = {number(hi)}"]) + "}"


Write = Callable[[CpuWriter, Node], Iterable[str]]
Fits = Callable[[Node], bool]


@dataclass(frozen=True)
class Row:
    """One kernel: the nodes it takes, and how they are written."""

    fits: Fits
    write: Write


KERNELS: dict[str, list[Row]] = {}


def kernel(*ops: str, fits: Fits = lambda node: True) -> Callable[[Write], Write]:
    """Register a writer of those nodes of `ops` that fit; rows are asked in the order of registration."""

    def register(write: Write) -> Write:
        for op in ops:
            KERNELS.setdefault(op, []).append(Row(fits, write))
        return write

    return register


def row_of(node: Node) -> Row | None:
    """The row that takes a node, None where the portable kernel does."""
    return next((row for row in KERNELS.get(node.op, ()) if row.fits(node)), None)


def falls_back(node: Node) -> bool:
    """Whether a node that does arithmetic on activations runs through a portable kernel."""
    return row_of(node) is None and node.op in PORTABLE


def statement(c: CpuWriter, node: Node) -> list[str]:
    """C statements of a node."""
    row = row_of(node)
    if row is not None:
        return list(row.write(c, node))
    c.used_bytes = portable_scratch_bytes(node)
    return list(PORTABLE[node.op].write(c, node))


def parallel(run: str, argument: str, parts: int) -> str:
    """A call of a tl_part: direct where there is one part."""
    return f"{run}({argument}, 0, 1);" if parts == 1 else f"tl_parallel({run}, {argument}, {parts});"


def struct(kind: str, name: str, fields: Mapping[str, object]) -> str:
    """Declaration of an argument; fields that are 0 or absent are left out."""
    text = ", ".join(f".{k} = {v}" for k, v in fields.items() if v not in (0, None))
    return f"const {kind} {name} = {{{text}}};"


def chunked(
    c: CpuWriter,
    run: str,
    argument: str,
    parts: int,
    shape: tuple[int, int],
    pitch: int,
    sums: str,
    turned: bool = False,
) -> list[str]:
    """Sums by chunks of positions, then what adds them up and updates (tl_chunks.h).

    shape: (rows, columns) of a chunk's sums, `pitch` floats a row; turned: the gradient is (columns, rows).
    """
    rows, columns = shape
    fields: dict[str, object] = {"sums": sums, "rows": rows, "columns": columns, "pitch": pitch, "u": "&u"}
    if turned:
        fields["turned"] = c.scratch(rows * columns)
    add = "tl_chunks_turned_part" if turned else "tl_chunks_part"
    return [
        parallel(run, argument, min(parts, CHUNKS)),
        struct("tl_chunks", "t", fields),
        parallel(add, "&t", c.elements_parts(CHUNKS * rows * pitch)),
    ]


def shape_value(c: Writer, s: object) -> str:
    """A tl_conv_shape as an initializer's value (not its address)."""
    return c.shape(s).removeprefix("&")  # type: ignore[arg-type]
