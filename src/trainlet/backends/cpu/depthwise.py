"""Depthwise convolutions: forward, input gradient, weight gradient with its update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from trainlet.backends.cpu.convolution import is_float, plain_update, transposed, update_of
from trainlet.backends.cpu.weights import padded
from trainlet.backends.cpu.weights import taps as packed_taps
from trainlet.backends.cpu.writer import CHUNKS, CpuWriter, chunked, kernel, parallel, shape_value, struct
from trainlet.ir import Node, Value
from trainlet.ir.ops.convolution import node_window
from trainlet.ir.ops.gradients import input_grad_window, weight_grad_window
from trainlet.ir.ops.window import Window


def _taps(c: CpuWriter, w: Value, turn: bool) -> tuple[list[str], str]:
    """Statements that turn w [c][taps] into [taps][c], and the expression of the result."""
    channels, count, lanes = w.shape[0], w.size // w.shape[0], c.target.lanes
    if c.frozen(w):
        return [], c.blob.put(w.name, f"taps {turn}", lambda d: packed_taps(d, lanes, turn))
    to = c.scratch(count * padded(channels, lanes))
    fields = {"w": c.ptr(w), "taps": to, "c": channels, "count": count, "turn": int(turn)}
    return [struct("tl_taps", "pack", fields), "tl_pack_taps(&pack, 0, 1);"], to


def _rows(c: CpuWriter, s: Window, x: str, taps_: str, run: str, finish: str) -> Iterable[str]:
    fields = {"s": shape_value(c, s), "x": x, "taps": taps_, "y": c.ptr(c.ending.out), "finish": finish}
    yield struct("tl_depthwise", "d", fields)
    yield parallel(run, "&d", c.parts(s.macs))


@kernel("Conv", fits=lambda n: is_float(n) and node_window(n).depthwise)
def forward(c: CpuWriter, n: Node) -> Iterable[str]:
    x, w = n.inputs[:2]
    assert w is not None
    pack, packed = _taps(c, w, False)
    yield from pack
    yield from _rows(c, node_window(n), c.ptr(x), packed, "tl_depthwise_rows", c.finish(n.input(2)))


def _gradient_fits(n: Node) -> bool:
    return is_float(n) and input_grad_window(n).depthwise and n.attrs.get("inplace") != 0


@kernel("ConvInputGrad", fits=_gradient_fits)
def input_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    s, (dy, w) = input_grad_window(n), n.inputs[:2]
    assert w is not None
    turned = transposed(s)
    pack, packed = _taps(c, w, turned is not None)
    yield from pack
    run = "tl_depthwise_grad_rows" if turned is None else "tl_depthwise_rows"
    yield from _rows(c, turned or s, c.ptr(dy), packed, run, c.finish())


def _weight_fits(n: Node) -> bool:
    x = n.inputs[0]
    whole = x is not None and x.dtype == "f32" and n.input(2) is None
    return whole and bool(n.attrs["depthwise"]) and plain_update(n)


@kernel("ConvWeightGrad", "ConvWeightGradUpdate", fits=_weight_fits)
def weight_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    s, (x, dy) = weight_grad_window(n), n.inputs[:2]
    s = replace(s, o=s.c, groups=s.c)
    yield update_of(c, n)
    taps, pitch = s.kh * s.kw, padded(s.c, c.target.lanes)
    sums = c.scratch(CHUNKS * taps * pitch)
    fields = {"s": shape_value(c, s), "x": c.ptr(x), "dy": c.ptr(dy), "sums": sums}
    yield struct("tl_depthwise_weights", "g", fields)
    shape = (taps, s.c)
    yield from chunked(c, "tl_depthwise_weights_part", "&g", c.parts(s.macs), shape, pitch, sums, turned=True)
