"""StreamRows means its stages, one after another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlet.ir import GraphBuilder, Quant, interpret
from trainlet.ir.ops.stream import Link, encode, rows_kept, stages, window_bytes


def chain(seed, kernel, stride, add):
    """1x1, depthwise and 1x1 convolutions of int8, then optionally the sum with the chain's input."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("chain")
    x = y = b.input("x", "s8", (1, 9, 7, 4), Quant(0.5, 3))
    for i, (o, k, groups) in enumerate(((6, 1, 1), (6, kernel, 6), (4, 1, 1))):
        w = b.constant(f"w{i}", rng.integers(-9, 9, (o, k, k, y.shape[-1] // groups)), "s8")
        bias = b.constant(f"b{i}", rng.integers(-50, 50, o), "s32")
        scale = b.constant(f"s{i}", rng.uniform(0.01, 0.05, o).astype(np.float32))
        attrs = {"strides": (stride if groups > 1 else 1,) * 2, "pads": (k // 2,) * 4, "groups": groups}
        y = b.add("QLinearConv", [y, w, bias, scale], attrs, name=f"y{i}", quant=Quant(0.25, -i))
    if add and stride == 1:
        y = b.add("QLinearAdd", [y, x], name="sum", quant=Quant(0.75, 1))
    return b, y


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 99), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.booleans())
def test_stream_rows_equals_its_stages(seed, kernel, stride, add):
    b, y = chain(seed, kernel, stride, add)
    operands, attrs = encode(b.nodes)
    streamed = b.add_node("StreamRows", operands, attrs, outputs=2, names=["z", "rows"], quant=y.quant)
    graph = b.build([y, streamed.output])
    x = np.random.default_rng(seed).integers(-128, 128, (1, 9, 7, 4)).astype(np.int8)
    layered, rows = interpret(graph, {"x": x}).outputs
    assert np.array_equal(layered, rows)
    parts = stages(streamed.inputs, streamed.attrs)
    assert [p.op for p in parts] == [n.op for n in graph.nodes[:-1]]
    assert streamed.outputs[1].bytes == window_bytes(parts)


def test_rows_between_stages_are_what_one_row_of_the_next_reads():
    b, _ = chain(0, 5, 1, True)
    # 5 rows of 7 x 6 for the depthwise window, one of 7 x 6 and one of 7 x 4 behind it; 6 bytes a stage
    assert window_bytes(b.nodes) == 5 * 7 * 6 + 7 * 6 + 7 * 4 + 32


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(0, 3), st.integers(7, 20))
def test_rows_kept_of_a_line_are_those_of_its_tallest_window(span, stride, pad, height):
    """What one row reads, the padding left out; a row that the stride passes over is not made."""
    pad = min(pad, span - 1)
    rows = (height + pad - span) // stride + 1
    line = (Link((-1,), 1, 0, 1, height, height), Link((0,), stride, pad, span, height, rows))
    tops = [r * stride - pad for r in range(rows)]
    assert rows_kept(line, True) == (1, max(min(height, top + span) - max(0, top) for top in tops))


def test_a_sum_keeps_the_rows_that_lie_between_its_operands():
    """x, 5x5 on it, x + that: x is two rows ahead of the sum."""
    block = (
        Link((-1,), 1, 0, 1, 9, 9),
        Link((0,), 1, 2, 5, 9, 9),
        Link((1, 0), 1, 0, 1, 9, 9),
    )
    assert rows_kept(block, True) == (1, 5, 1)
    pointwise_first = (
        block[0],
        Link((0,), 1, 0, 1, 9, 9),
        Link((1,), 1, 2, 5, 9, 9),
        Link((2, 0), 1, 0, 1, 9, 9),
    )
    assert rows_kept(pointwise_first, True) == (1, 3, 5, 1)
