"""A chain of frozen int8 convolutions, maxima and sums as one op: between its stages only a few rows exist.

The stages are encoded in the node: operands are the tensors the chain is given, then weight, bias, scale of
each convolution. `stages` gives them back as ordinary nodes. A stage reads an earlier stage or a given
tensor, whole or (the first of them, with `by_rows`) an image that arrives by rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from trainlet.ir.graph import Attr, Attrs, Node, Quant, Value
from trainlet.ir.ops.convolution import node_window
from trainlet.ir.ops.pooling import node_pool
from trainlet.ir.ops.table import OPS, REQUIRED, Call, Result, check, infer_node, op
from trainlet.ir.ops.window import Window

STAGES = 64  # TL_STREAM_STAGES of tl_stream.h
MOST_READERS = 2  # of a stage, likewise
CONV, ADD, MAX = 0, 1, 2
OF_KIND = {CONV: "QLinearConv", ADD: "QLinearAdd", MAX: "MaxPool"}
KIND_OF = {op_name: kind for kind, op_name in OF_KIND.items()}
SOURCES = {CONV: 1, ADD: 2, MAX: 1}  # activations that a stage reads
_STEPS = ("sh", "sw", "pt", "pl", "pb", "pr")  # of a window, as they stand in the record
_WINDOW = {CONV: (*_STEPS, "dh", "dw", "groups"), ADD: (), MAX: ("kh", "kw", *_STEPS)}
_ATTRS = {CONV: ("w_zero", "lo", "hi", "once"), ADD: ("fixed", "subtract", "lo", "hi"), MAX: ()}
_FLAGS = ("once", "fixed", "subtract")
_PROGRESS_BYTES = 6  # what the kernel notes of a stage, and of the image


def encode(nodes: Sequence[Node], by_rows: bool = False) -> tuple[list[Value | None], dict[str, Attr]]:
    """Operands and attributes of the StreamRows of `nodes`, QLinearConv, QLinearAdd and MaxPool in order.

    by_rows: the first tensor that the first node reads is an image that arrives by rows.
    """
    given: dict[str, Value] = {}
    parameters: list[Value | None] = []
    records: list[int] = []
    scales, zeros = [], []
    made = {n.output.name: i for i, n in enumerate(nodes)}
    for node in nodes:
        kind, s = KIND_OF[node.op], stage_window(node)
        records.append(kind)
        for v in node.inputs[: SOURCES[kind]]:
            assert v is not None
            if v.name not in made:
                given.setdefault(v.name, v)
            records.append(made[v.name] if v.name in made else -1 - list(given).index(v.name))
        records += [getattr(s, k) for k in _WINDOW[kind]]
        records += [int(node.attrs[k]) for k in _ATTRS[kind]]
        parameters += node.inputs[1:4] if kind == CONV else ()
        quant = node.output.quant
        assert quant is not None and isinstance(quant.scale, float)
        scales.append(quant.scale)
        zeros.append(quant.zero_point)
    attrs: dict[str, Attr] = {"stages": tuple(records), "scales": tuple(scales), "zeros": tuple(zeros)}
    return [*given.values(), *parameters], attrs | ({"by_rows": True} if by_rows else {})


@dataclass(frozen=True)
class _Record:
    """One stage as encoded."""

    kind: int
    sources: tuple[int, ...]
    attrs: Attrs


def _records(attrs: Attrs) -> list[_Record]:
    """The stages in `attrs`. Raises GraphError where they are cut short."""
    words: list[int] = list(attrs["stages"])
    found: list[_Record] = []
    while words:
        check(words[0] in OF_KIND, f"stage {len(found)} is of kind {words[0]}")
        kind = words.pop(0)
        names = (*_WINDOW[kind], *_ATTRS[kind])
        count = SOURCES[kind]
        check(len(words) >= count + len(names), f"stage {len(found)} is cut short")
        sources, values = tuple(words[:count]), dict(zip(names, words[count:], strict=False))
        del words[: count + len(names)]
        full: dict[str, Attr] = {k: bool(values[k]) if k in _FLAGS else values[k] for k in names}
        if kind != ADD:
            sh, sw, *pads = (full.pop(k) for k in _STEPS)
            full |= {"strides": (sh, sw), "pads": tuple(pads)}  # type: ignore[dict-item]
        for pair, sides in (("dilations", ("dh", "dw")), ("kernel", ("kh", "kw"))):
            if sides[0] in full:
                full[pair] = tuple(full.pop(k) for k in sides)  # type: ignore[assignment]
        found.append(_Record(kind, sources, full))
    return found


def given_count(attrs: Attrs) -> int:
    """How many leading operands are activations."""
    return max((-s for r in _records(attrs) for s in r.sources if s < 0), default=0)


def stages(inputs: Sequence[Value | None], attrs: Attrs, name: str = "stage", source: str = "") -> list[Node]:
    """The chain as ordinary nodes, their results named `name`.0, `name`.1, …"""
    records = _records(attrs)
    nodes: list[Node] = []
    at = given_count(attrs)
    check(at >= 1 and len(inputs) >= at, f"{len(inputs)} operands for {at} given tensors")
    for i, (record, scale, zero) in enumerate(zip(records, attrs["scales"], attrs["zeros"], strict=True)):
        check(all(s < i for s in record.sources), f"stage {i} reads {record.sources}")
        operands = [nodes[s].output if s >= 0 else inputs[-1 - s] for s in record.sources]
        if record.kind == CONV:
            operands += inputs[at : at + 3]
            at += 3
        full, results = infer_node(OF_KIND[record.kind], operands, record.attrs, source, 1)
        value = Value(f"{name}.{i}", results[0][0], results[0][1], Quant(scale, zero))
        nodes.append(Node(OF_KIND[record.kind], tuple(operands), (value,), MappingProxyType(full), source))
    return nodes


def stage_window(node: Node) -> Window:
    """Window of a stage; an add is a 1x1 window."""
    if node.op != "QLinearAdd":
        return node_window(node) if node.op == "QLinearConv" else node_pool(node)
    n, h, w, c = node.output.shape
    return Window(n, h, w, c, h, w, c, 1, 1)


@dataclass(frozen=True)
class Link:
    """How a stage reads: `sources` as encoded, and what of them its next row needs.

    Row r reads rows r * stride - pad .. + span - 1 of the `height` that there are; it makes `rows` rows.
    """

    sources: tuple[int, ...]
    stride: int
    pad: int
    span: int
    height: int
    rows: int


def links(nodes: Sequence[Node]) -> tuple[Link, ...]:
    """How the stages of a chain read each other; given tensors are -1, -2, … in order of appearance."""
    made = {n.output.name: i for i, n in enumerate(nodes)}
    given: dict[str, int] = {}
    found = []
    for node in nodes:
        s = stage_window(node)
        names = [v.name for v in node.inputs[: SOURCES[KIND_OF[node.op]]] if v is not None]
        sources = tuple(
            made[name] if name in made else given.setdefault(name, -1 - len(given)) for name in names
        )
        found.append(Link(sources, s.sh, s.pt, (s.kh - 1) * s.dh + 1, s.h, s.oh))
    return tuple(found)


def readers(chain: Sequence[Link], source: int) -> list[int]:
    """The stages that read a stage or a given tensor."""
    return [j for j, link in enumerate(chain) if source in link.sources]


@lru_cache(maxsize=512)
def rows_kept(chain: tuple[Link, ...], by_rows: bool) -> tuple[int, ...]:
    """Rows that must exist at a time: of the image (0 where it is whole), then of each stage but the last.

    The kernel's schedule, on counters: the last stage asks for the rows it needs; a stage that lacks input
    lets the one before it run for one row.
    """
    last = len(chain) - 1
    made, first, most = [0] * (last + 2), [0] * (last + 2), [0] * (last + 2)  # by source + 1; 0 is the image
    of = [readers(chain, s) for s in range(-1, last)]

    def make_room(at: int) -> None:
        """Rows that no reader needs any more go; those that none will need are never made."""
        waiting = [(made[j + 1], chain[j]) for j in of[at] if made[j + 1] < chain[j].rows]
        needed = min((max(0, row * link.stride - link.pad) for row, link in waiting), default=0)
        first[at] = max(first[at], needed)
        made[at] = max(made[at], first[at])

    stack = [last]
    while made[last + 1] < chain[last].rows:
        i = stack[-1]
        link = chain[i]
        end = min(link.height, made[i + 1] * link.stride - link.pad + link.span)
        lacking = next((s for s in link.sources if s >= 0 and made[s + 1] < end), None)
        if lacking is not None:
            make_room(lacking + 1)
            stack.append(lacking)
            continue
        if by_rows and -1 in link.sources and made[0] < end:
            make_room(0)
            made[0] = end
            most[0] = max(most[0], end - first[0])
        made[i + 1] += 1
        most[i + 1] = max(most[i + 1], made[i + 1] - first[i + 1])
        if i != last:
            stack.pop()
    return tuple(most[:-1])


def row_bytes(chain: Sequence[Node], by_rows: bool) -> tuple[int, ...]:
    """Bytes of a row of the image (0 where it is whole), then of each stage's result but the last's."""
    windows = [stage_window(n) for n in chain]
    return (windows[0].w * windows[0].c if by_rows else 0, *(s.ow * s.o for s in windows[:-1]))


def progress_bytes(count: int) -> int:
    """What the kernel notes of a chain of `count` stages (tl_stream.h)."""
    return -(-_PROGRESS_BYTES * (count + 1) // 4) * 4


def window_bytes(nodes: Sequence[Node], by_rows: bool = False) -> int:
    """Bytes of the rows kept at a time, and of what the kernel notes beside them (tl_stream.h)."""
    kept = rows_kept(links(nodes), by_rows)
    rows = sum(n * b for n, b in zip(kept, row_bytes(nodes, by_rows), strict=True))
    return progress_bytes(len(nodes)) + rows


def _infer(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    count = len(attrs["scales"])
    check(1 <= count <= STAGES, f"a chain of {count} stages")
    check(len(_records(attrs)) == count == len(attrs["zeros"]), "stages, scales and zeros differ in number")
    nodes = stages(inputs, attrs)
    chain = links(nodes)
    for i, link in enumerate(chain):
        of = readers(chain, i)
        check(len(of) <= MOST_READERS and (bool(of) or i == count - 1), f"stage {i} has {len(of)} readers")
        check(max(link.height, link.rows) < 2**15 and link.pad < link.span, f"stage {i} is no stage")
    check(not attrs["by_rows"] or len(readers(chain, -1)) <= MOST_READERS, "the image has too many readers")
    last = nodes[-1].output
    return [(last.dtype, last.shape), ("s8", (window_bytes(nodes, bool(attrs["by_rows"])),))]


def _macs(node: Node) -> int:
    return sum(OPS[n.op].macs(n) for n in stages(node.inputs, node.attrs))


@op(
    "StreamRows",
    _infer,
    (1, 4 * STAGES),
    {"stages": REQUIRED, "scales": REQUIRED, "zeros": REQUIRED, "by_rows": False},
    macs=_macs,
)
def stream_rows(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """given s8 (N, H, W, C)…, then weight, bias, scale of each convolution -> y s8, rows kept (undefined)."""
    nodes = stages(call.node.inputs, call.attrs)
    given = zip(call.node.inputs, call.inputs, strict=True)
    env: dict[str, np.ndarray] = {v.name: a for v, a in given if v is not None and a is not None}
    for node in nodes:
        args = tuple(None if v is None else env[v.name] for v in node.inputs)
        result = OPS[node.op].run(Call(node, args, call.real, call.scales))
        env[node.output.name] = result[0] if isinstance(result, tuple) else result
    return env[nodes[-1].output.name], np.zeros(call.node.outputs[1].shape, np.int8)
