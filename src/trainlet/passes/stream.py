"""Streaming: chains of frozen int8 layers keep only the rows they need, where that lowers the peak.

Exact, and nothing is computed twice. The idea is that of patch-based inference without its halo
(Lin et al., MCUNetV2, arXiv:2110.15352, recompute the halo): here each row of each layer is computed once.

Where to cut is solved exactly. The steps of a run of streamable nodes follow each other, so the peak of a
choice of cuts is the largest of its chains: dynamic programming over the last cut finds the least work within
a peak. Each row of a chain packs the weights of its stages anew; that is the work. The peak is the one that
is worth it, or what the graph has anyway elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from types import MappingProxyType

from trainlet.errors import SchemeError
from trainlet.ir import Graph, Node, Value
from trainlet.ir.ops import OPS
from trainlet.ir.ops.stream import (
    KIND_OF,
    MOST_READERS,
    STAGES,
    encode,
    links,
    progress_bytes,
    row_bytes,
    rows_kept,
    stage_window,
    window_bytes,
)
from trainlet.passes.inplace import reuse_in_place
from trainlet.plan.liveness import LiveRange, arena_ranges, live_bytes

INSTRUCTIONS = 2.5  # of a multiply-accumulate, all of a forward pass taken together


def stream_rows(graph: Graph, enough_bytes: int = 0) -> Graph:
    """Merges neighbours into streamed ops so that the peak is small, with the least work for that.

    enough_bytes: a peak that costs nothing, because another function has it. An input that comes by rows is
    read by such an op whatever it costs. Raises SchemeError where that cannot be.
    """
    runs = [_Run(graph, first, end) for first, end in _runs(graph)]
    _check_rows(graph, runs)
    alive = live_bytes(arena_ranges(reuse_in_place(graph)), len(graph.nodes))
    ranges = arena_ranges(graph)
    costs = [_costs(run, ranges, alive) for run in runs]
    inside = {i for run in runs for i in range(run.first, run.end)}
    elsewhere = [n for i, n in enumerate(alive) if i - 1 not in inside and 0 < i <= len(graph.nodes)]
    floor = max([enough_bytes, *elsewhere])
    peak = max([floor, *(_worthwhile_peak(cost, floor) for cost in costs)])
    nodes = list(graph.nodes)
    for run, cost in reversed([*zip(runs, costs, strict=True)]):
        nodes[run.first : run.end] = _cut(run, cost, peak)
    return graph if nodes == list(graph.nodes) else graph.with_nodes(nodes)


def _streamable(node: Node) -> bool:
    """A frozen convolution of rank 2, a maximum or a sum, of int8, without a mask."""
    y = node.output
    if len(node.outputs) > 1 or y.dtype != "s8" or len(y.shape) != 4 or y.quant is None:
        return False
    if node.op not in KIND_OF or not isinstance(y.quant.scale, float) or len(node.inputs) > 4:
        return False
    if node.op == "QLinearConv":
        w, bias = node.inputs[1:3]
        if w is None or w.dtype != "s8" or bias is None or bias.dtype != "s32":
            return False
    s = stage_window(node)
    return s.pt < (s.kh - 1) * s.dh + 1 and max(s.h, s.oh) < 2**15


def _runs(graph: Graph) -> Iterator[tuple[int, int]]:
    """first, end of each longest sequence of streamable nodes that can end in one chain or more."""
    first = None
    for i, node in enumerate((*graph.nodes, None)):
        if node is not None and _streamable(node):
            first = i if first is None else first
        elif first is not None:
            yield first, i
            first = None


class _Run:
    """Neighbouring nodes first .. end-1 of a graph; below, a node is counted from the run's first.

    last_reader: of each node's result, `inf` where someone outside reads it. by_rows: readers of the image
    that comes by rows.
    """

    def __init__(self, graph: Graph, first: int, end: int) -> None:
        self.first, self.end = first, end
        self.nodes = graph.nodes[first:end]
        readers = _readers(graph)
        results = {v.name for v in (*graph.outputs, *graph.updates.values())}
        self.last_reader: list[float] = []
        self.most_readers: list[int] = []
        for node in self.nodes:
            of = readers.get(node.output.name, [])
            seen_outside = node.output.name in results or not of or of[-1] >= end
            self.last_reader.append(inf if seen_outside else of[-1] - first)
            self.most_readers.append(len(of))
        images = [name for name, place in graph.placed.items() if place == "rows"]
        self.by_rows = [i - first for name in images for i in readers.get(name, []) if first <= i < end]

    def chain(self, i: int, j: int) -> bool:
        """Whether nodes i .. j can be one chain: nothing but the last is read elsewhere."""
        inner = range(i, j)
        reads = [k for k in self.by_rows if i <= k <= j]
        return (
            j - i < STAGES
            and all(self.last_reader[k] <= j and self.most_readers[k] <= MOST_READERS for k in inner)
            and (not reads or (len(reads) == len(self.by_rows) <= MOST_READERS and reads[0] == i))
        )

    def image_in(self, i: int, j: int) -> bool:
        """Whether nodes i .. j read the image that comes by rows."""
        return any(i <= k <= j for k in self.by_rows)


def _readers(graph: Graph) -> dict[str, list[int]]:
    """Value name -> the steps that read it."""
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for name in dict.fromkeys(v.name for v in node.operands()):
            readers.setdefault(name, []).append(i)
    return readers


@dataclass(frozen=True)
class _Cost:
    """Bytes alive during, and work added by, nodes i .. j as one step, [(i, j)]. whole: work of all."""

    bytes: dict[tuple[int, int], float]
    work: dict[tuple[int, int], float]
    count: int
    whole: float


def _costs(run: _Run, ranges: list[LiveRange], alive: list[int]) -> _Cost:
    """Of every chain that a run has, and of every node left alone."""
    count = len(run.nodes)
    before = [sum(r.bytes for r in ranges if r.start < i <= r.end) for i in range(run.first, run.end)]
    kept = _rows_bytes(run)
    window, work = [0, *accumulate(kept)], [0.0, *accumulate(map(_repacking, run.nodes))]
    cost = _Cost({}, {}, count, INSTRUCTIONS * sum(OPS[n.op].macs(n) for n in run.nodes))
    image = _image_bytes(run)
    for i in range(count):
        if not run.image_in(i, i):
            cost.bytes[i, i], cost.work[i, i] = alive[run.first + i + 1], 0.0
        for j in range(i, count):
            by_rows = run.image_in(i, j)
            if (j > i or by_rows) and run.chain(i, j):
                rows = window[j] - window[i] + progress_bytes(j - i + 1)
                rows += image if by_rows else 0
                cost.bytes[i, j] = before[i] + run.nodes[j].output.bytes + rows
                cost.work[i, j] = work[j + 1] - work[i]
    return cost


def _rows_bytes(run: _Run) -> list[int]:
    """Bytes of the rows that each node's result needs inside a chain; they hardly depend on where it ends."""
    kept: list[int] = []
    for i, last in enumerate(run.last_reader):
        if last == inf or i == len(run.nodes) - 1:
            part = run.nodes[len(kept) : i + 1]
            rows, sizes = rows_kept(links(part), False)[1:], row_bytes(part, False)[1:]
            kept += [*(n * b for n, b in zip(rows, sizes, strict=True)), 0]
    return kept


def _image_bytes(run: _Run) -> int:
    """Bytes of the rows of the image that comes by rows; they hardly depend on where the chain ends."""
    if not run.by_rows:
        return 0
    first = run.by_rows[0]
    end = (
        next(k for k, last in enumerate(run.last_reader) if k >= run.by_rows[-1] and last in (inf, k + 1)) + 1
    )
    part = run.nodes[first:end]
    return rows_kept(links(part), True)[0] * row_bytes(part, True)[0]


def _repacking(node: Node) -> float:
    """Instructions that rows take beyond the whole on a Cortex-M7: each packs the weights, and ends a block
    of four positions."""
    s = stage_window(node)
    if node.op != "QLinearConv":
        return 0.0
    taps = s.kh * s.kw
    if s.depthwise:
        return (s.oh - 1) * s.o * (12 * taps + 40)
    products = s.o * taps * s.c // s.groups
    left_over = s.oh * (-s.ow % 4) - (-s.oh * s.ow % 4)
    return (s.oh - 1) * (1.5 * products + 60 * s.o) + left_over * (0.8 * products + 20 * s.o)


def _worthwhile_peak(cost: _Cost, floor: float) -> float:
    """The peak at which peak times work is least: a tenth less memory may cost a tenth more instructions.

    A peak below `floor`, which the graph has elsewhere, counts as `floor`.
    """
    best, limit = (inf, floor), max(cost.bytes.values())
    while (steps := _least_work(cost, limit))[-1][0] < inf:
        peak = max((cost.bytes[i, j] for i, j in _chosen(steps)), default=0)
        best = min(best, (max(peak, floor) * (cost.whole + steps[-1][0]), peak))
        if peak <= floor:
            break
        limit = peak - 1
    return best[1]


def _least_work(cost: _Cost, peak: float) -> list[tuple[float, int]]:
    """For each number of leading nodes the least work within the peak, and where the last step begins."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for j in range(cost.count):
        steps = (
            (best[i][0] + cost.work[i, j], i) for i in range(j + 1) if cost.bytes.get((i, j), inf) <= peak
        )
        best.append(min(steps, key=lambda s: (s[0], -s[1]), default=(inf, 0)))
    return best


def _cut(run: _Run, cost: _Cost, peak: float) -> list[Node]:
    """The run's nodes, merged with the least work so that no step exceeds the peak."""
    nodes = []
    for i, j in _chosen(_least_work(cost, peak)):
        alone = i == j and not run.image_in(i, i)
        nodes.append(run.nodes[i] if alone else _merge(run.nodes[i : j + 1], run.image_in(i, j)))
    return nodes


def _chosen(steps: list[tuple[float, int]]) -> list[tuple[int, int]]:
    """First and last node of each step that `_least_work` found, in order."""
    chosen, end = [], len(steps) - 1
    while end > 0:
        chosen.append((steps[end][1], end - 1))
        end = steps[end][1]
    return chosen[::-1]


def _merge(nodes: tuple[Node, ...], by_rows: bool) -> Node:
    """One StreamRows for nodes."""
    operands, attrs = encode(nodes, by_rows)
    last = nodes[-1].output
    rows = Value(f"{last.name}.rows", "s8", (window_bytes(nodes, by_rows),))
    full = MappingProxyType({"by_rows": False, **attrs})
    return Node("StreamRows", tuple(operands), (last, rows), full, nodes[0].source)


def _check_rows(graph: Graph, runs: list[_Run]) -> None:
    """Raises SchemeError where an image that comes by rows is read by what needs it whole."""
    streamed = {run.first + k for run in runs for k in run.by_rows}
    for name, place in graph.placed.items():
        readers = _readers(graph).get(name, [])
        whole = next((graph.nodes[i] for i in readers if i not in streamed), None)
        if place != "rows" or (whole is None and readers):
            continue
        raise SchemeError(_needed_whole(name, whole))


def _needed_whole(name: str, node: Node | None) -> str:
    advice = 'keep it in memory (input "arena" or "caller")'
    if node is None:
        return f"{name} cannot come by rows, nothing reads it: {advice}"
    layer = node.source or node.output.name
    frozen = "Grad" not in node.op and len(node.outputs) == 1 and len(node.inputs) <= 4
    if frozen:
        return f"{name} cannot come by rows: {node.op} at {layer} needs it whole; {advice}"
    return f"{name} cannot come by rows: training needs it whole at {layer}; freeze that layer, or {advice}"
