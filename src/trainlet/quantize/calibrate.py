"""Calibration: the range of values that every activation takes on sample inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from trainlet.errors import DataError, ModelError
from trainlet.ir.graph import Graph, Node, Quant
from trainlet.ir.interpret import interpret

METHODS = ("minmax", "percentile")
MIN_SAMPLES = 4  # below this a range says more about the samples than about the network
BINS = 4096
MIN_SPAN = 1e-28  # narrower ranges have no normal float32 scale


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor, as observed (zero not included yet)."""

    lo: float
    hi: float

    @property
    def constant(self) -> bool:
        return self.hi - self.lo < MIN_SPAN

    def quant(self) -> Quant:
        """Asymmetric int8 parameters that cover [lo, hi] and zero; zero is represented exactly.

        The scale is rounded to float32, as every kernel reads it. A range of nothing but zero gets scale 1.
        """
        lo, hi = min(self.lo, 0.0), max(self.hi, 0.0)
        if hi - lo < MIN_SPAN:
            return Quant(1.0, 0)
        scale = float(np.float32((hi - lo) / 255))
        return Quant(scale, int(np.clip(np.rint(-128 - lo / scale), -128, 127)))


@dataclass
class Histogram:
    """Counts over [-limit, limit]; the limit doubles, merging bins in pairs, when a value falls outside."""

    limit: float = 2.0**-20
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: np.ndarray) -> None:
        largest = float(np.abs(values).max())
        while largest > self.limit:
            merged = np.zeros(BINS, np.int64)
            merged[BINS // 4 : 3 * BINS // 4] = self.counts.reshape(-1, 2).sum(1)
            self.counts, self.limit = merged, 2 * self.limit
        self.counts += np.histogram(values, BINS, (-self.limit, self.limit))[0]

    def range(self, percentile: float) -> Range:
        """The range that leaves out (100 - percentile) percent at each end, to the width of a bin."""
        below = np.cumsum(self.counts)
        share = (1 - percentile / 100) * below[-1]
        first = int(np.searchsorted(below, share, side="right"))
        last = int(np.searchsorted(below, below[-1] - share, side="left"))
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        return Range(float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1]))


def calibrate(graph: Graph, samples: np.ndarray, method: str, percentile: float) -> dict[str, Range]:
    """Range of the input and of every f32 result of a float graph over `samples` (M, *sample shape).

    `minmax` takes the extremes; `percentile` cuts (100 - percentile) percent of the values at each
    end, so that a rare outlier does not coarsen the rest.
    Raises DataError where the samples do not fit, ModelError naming the layer that overflows.
    """
    samples = check_samples(graph, samples)
    if method not in METHODS:
        raise DataError(f"calibration method {method!r} is not one of {', '.join(METHODS)}")
    if not 50 < percentile <= 100:
        raise DataError(f"calibration percentile {percentile} is not above 50 and at most 100")
    extremes: dict[str, Range] = {}
    histograms: dict[str, Histogram] = {}
    for name, array in _observe(graph, samples):
        lo, hi = float(array.min()), float(array.max())
        if known := extremes.get(name):
            lo, hi = min(lo, known.lo), max(hi, known.hi)
        extremes[name] = Range(lo, hi)
        if method == "percentile":
            histograms.setdefault(name, Histogram()).add(array)
    if method == "minmax":
        return extremes
    return {name: _within(histograms[name].range(percentile), whole) for name, whole in extremes.items()}


def check_samples(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """The samples as float32. Raises DataError where their number, shape, type or values do not fit."""
    value, samples = graph.inputs[0], np.asarray(samples)
    if samples.dtype.kind not in "fiu":
        raise DataError(f"calibration samples are {samples.dtype}; give real numbers")
    if samples.shape[1:] != value.shape[1:] or samples.ndim == 0:
        raise DataError(
            f"calibration samples have shape {samples.shape}, input {value.name} of {graph.name} takes "
            f"(samples, {', '.join(map(str, value.shape[1:]))})"
        )
    if len(samples) < MIN_SAMPLES:
        raise DataError(f"{len(samples)} calibration samples are too few; give at least {MIN_SAMPLES}")
    finite = np.isfinite(samples).reshape(len(samples), -1).all(1)
    if not finite.all():
        raise DataError(f"calibration sample {int(np.argmin(finite))} holds NaN or infinity; remove it")
    return samples.astype(np.float32)


def layer_name(node: Node) -> str:
    """What the user calls a node: its source, or else its result."""
    return node.source or node.output.name


def _observe(graph: Graph, samples: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of the input and every f32 result, batch after batch.

    The last batch is filled up with the first samples, which the ranges have seen already.
    """
    value = graph.inputs[0]
    batch = value.shape[0]
    for start in range(0, len(samples), batch):
        x = samples.take(range(start, start + batch), axis=0, mode="wrap")
        yield value.name, x
        values = interpret(graph, {value.name: x}).values
        for node in graph.nodes:
            for out in (v for v in node.outputs if v.dtype == "f32"):
                if not np.isfinite(values[out.name]).all():
                    last = min(start + batch, len(samples)) - 1
                    raise ModelError(
                        f"layer {layer_name(node)} gives NaN or infinity on calibration samples {start} to "
                        f"{last}; check its weights and how inputs are normalized"
                    )
                yield out.name, values[out.name]


def _within(inner: Range, outer: Range) -> Range:
    """`inner` without what lies outside `outer`."""
    return Range(max(inner.lo, outer.lo), min(inner.hi, outer.hi))
