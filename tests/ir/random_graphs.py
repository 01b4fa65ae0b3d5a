"""Hypothesis strategies: random legal graphs over most of the op table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from trainlet.ir import Graph, GraphBuilder, Quant, Value
from trainlet.ir.graph import DTYPES

Draw = Callable[[st.SearchStrategy], object]

names = st.text("abcXYZ019_./-", min_size=1, max_size=6)
float32s = st.floats(width=32, allow_nan=False)
scales = st.floats(1e-30, 1e30)
sources = st.text(max_size=8)
dims = st.integers(1, 3)
zero_points = st.integers(-128, 127)


def array(draw: Draw, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Contents of any size; floats are arbitrary bit patterns short of NaN."""
    count = math.prod(shape)
    kind = DTYPES[dtype][0]
    if dtype == "f32":
        items = draw(st.lists(float32s, min_size=count, max_size=count))
    else:
        low, high = (0, 1) if dtype == "u1" else (np.iinfo(kind).min, np.iinfo(kind).max)
        items = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    return np.array(items, kind).reshape(shape)


def quant(draw: Draw) -> Quant:
    return Quant(draw(scales), draw(zero_points))


def _float_step(draw: Draw, b: GraphBuilder, x: Value) -> Value:
    channels = x.shape[-1]
    match draw(
        st.sampled_from(["clip", "add", "conv", "gemm", "reshape", "concat", "pad", "max", "quantize"])
    ):
        case "clip":
            lo = draw(st.sampled_from([-math.inf, 0.0, -1.5]))
            return b.add(
                "Clip", [x], {"lo": lo, "hi": 6.0}, name=draw(names), source=draw(sources), outputs=2
            )
        case "add":
            return b.add("Add", [x, b.constant(draw(names), array(draw, "f32", (channels,)), "f32")])
        case "conv":
            o, k = draw(dims), draw(dims)
            w = b.parameter(draw(names), array(draw, "f32", (o, k, k, channels)), "f32")
            pads, strides = (k - 1,) * 4, (draw(dims), 1)
            bias = b.constant(draw(names), array(draw, "f32", (o,)), "f32") if draw(st.booleans()) else None
            trained, rows = None, None
            if draw(st.booleans()):
                trained = b.parameter(draw(names), array(draw, "f32", (o, k, k, 1)), "f32")
                rows = b.constant(draw(names), np.zeros(1, np.uint16))
            operands = [x, w, bias, trained, rows]
            return b.add("Conv", operands, {"pads": pads, "strides": strides}, name=draw(names))
        case "gemm":
            w = b.parameter(draw(names), array(draw, "f32", (draw(dims), channels)), "f32")
            return b.add("Gemm", [x, w], {"hi": draw(st.floats(allow_nan=False))}, source=draw(sources))
        case "reshape":
            flat = b.add("Reshape", [x], {"shape": (x.size,)})
            return b.add("Reshape", [flat], {"shape": x.shape})
        case "concat":
            return b.add("Concat", [x] * draw(dims), {"axis": 3}, name=draw(names))
        case "pad":
            return b.add("Pad", [x], {"pads": (0, 1, 0, 0) + (0,) * 4, "value": draw(float32s)})
        case "max":
            return b.add("MaxPool", [x], {"kernel": (1, 1)})
        case _:
            q = b.add(
                "QuantizeLinear", [x], quant=quant(draw), name=draw(names), outputs=draw(st.integers(1, 2))
            )
            return b.add("DequantizeLinear", [q])


@st.composite
def graphs(draw: Draw) -> Graph:
    """A legal graph of up to eight nodes or so, with constants, states, updates and two inputs."""
    b = GraphBuilder(draw(names))
    x = b.input(draw(names), "f32", (draw(dims), 2, 2, draw(dims)))
    b.input(draw(names), "s8", tuple(draw(st.lists(dims, max_size=3))), quant(draw))
    value, results = x, []
    for _ in range(draw(st.integers(0, 5))):
        value = _float_step(draw, b, value)
        results.append(value)
    weight = b.constant(draw(names), array(draw, "f32", (4,)), "f32")
    b.constant(draw(names), array(draw, "s8", (4, 2)), "s8", Quant(weight.name, 0, 0))
    for dtype in sorted(DTYPES.keys() - {"f32"}):
        table = b.constant(draw(names), array(draw, dtype, (draw(dims),)), dtype)
        results.append(b.add("Reshape", [table], {"shape": table.shape}))
    state = b.parameter(draw(names), np.array([draw(st.integers(0, 2**32 - 1)), 0], np.uint32))
    b.updates[state.name] = b.add("NextStep", [state], name=f"{state.name}.new")
    return b.build(results)
