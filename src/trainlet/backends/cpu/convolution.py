"""Dense convolutions and matrix products: forward, input gradient, weight and bias gradients with updates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from trainlet.backends.c99.update import update_struct
from trainlet.backends.c99.writer import braces
from trainlet.backends.cpu import lines, winograd
from trainlet.backends.cpu.weights import padded, panels
from trainlet.backends.cpu.writer import CHUNKS, CpuWriter, chunked, kernel, parallel, shape_value, struct
from trainlet.ir import Node, Value
from trainlet.ir.ops.convolution import node_window
from trainlet.ir.ops.gradients import input_grad_window, weight_grad_window
from trainlet.ir.ops.optimizers import update_operand
from trainlet.ir.ops.window import Window

WEIGHTS_DEPTH = 128  # TL_WEIGHTS_DEPTH of tl_dense.h
CHUNKED_POSITIONS = 512  # as many have sums of their own for each chunk (tl_chunks.h)
WIDE = 65_536  # elements of a matrix whose gradient is summed by blocks


def is_product(s: Window) -> bool:
    """A convolution that is a matrix product over positions."""
    return s.groups == 1 and (s.kh, s.kw, s.sh, s.sw) == (1, 1, 1, 1) and not (s.pt or s.pl or s.pb or s.pr)


def is_float(n: Node) -> bool:
    """fp32 throughout, no trained subset of channels laid over the weights."""
    return all(v.dtype in ("f32", "u1") for v in n.operands()) and n.input(3) is None


def tile_rows(k: int) -> int:
    """tl_dense_tile of tl_dense.h."""
    return min(480, max(24, 65536 // max(1, k) // 24 * 24))


def _forward_panels(c: CpuWriter, w: Value, parts: int) -> tuple[list[str], str]:
    """Statements that make panels of w [o][k], and the expression of them."""
    o, k = w.shape[0], w.size // w.shape[0]
    if c.frozen(w):
        return [], c.blob.put(w.name, "forward", lambda d: panels(d.reshape(o, k).T, c.target.lanes))
    to = c.scratch(k * padded(o, c.target.lanes))
    pack = {"w": c.ptr(w), "panels": to, "k": k, "n": o, "ldw": k, "turn": 1}
    return [struct("tl_pack", "pack", pack), parallel("tl_pack_panels", "&pack", parts)], to


def _product(c: CpuWriter, m: int, k: int, n: int, a: str, b: str, y: str, finish: str) -> Iterable[str]:
    fields = {"a": a, "b": b, "c": y, "m": m, "k": k, "n": n, "a_row": k, "a_depth": 1, "ldc": n}
    yield struct("tl_gemm", "g", {**fields, "finish": finish})
    yield parallel("tl_gemm_rows", "&g", c.parts(m * k * n))


@kernel("Conv", "Gemm", fits=lambda n: is_float(n) and node_window(n).groups == 1)
def forward(c: CpuWriter, n: Node) -> Iterable[str]:
    s, (x, w) = node_window(n), n.inputs[:2]
    assert w is not None
    finish = c.finish(n.input(2))
    if winograd.pays(c, s, c.frozen(w)):
        yield from winograd.write(c, s, c.ptr(x), w, c.ptr(c.ending.out), finish, False)
        return
    pack, b = _forward_panels(c, w, c.parts(s.macs))
    yield from pack
    if is_product(s):
        yield from _product(c, s.positions, s.c, s.o, c.ptr(x), b, c.ptr(c.ending.out), finish)
        return
    if lines.fits(s):
        yield from lines.forward(c, s, c.ptr(x), b, c.ptr(c.ending.out), finish)
        return
    yield from _dense(c, s, c.ptr(x), b, c.ptr(c.ending.out), finish, "tl_dense_rows")


def _dense(c: CpuWriter, s: Window, x: str, b: str, y: str, finish: str, run: str) -> Iterable[str]:
    parts = c.parts(s.macs)
    k = s.kh * s.kw * (s.c if run == "tl_dense_rows" else s.o)
    row = k if run == "tl_dense_rows" else k + s.c
    fields = {"s": shape_value(c, s), "x": x, "panels": b, "y": y, "finish": finish}
    yield struct(
        "tl_dense", "d", {**fields, "tiles": c.scratch(parts * (tile_rows(k) * row + c.target.lanes))}
    )
    yield parallel(run, "&d", parts)


def transposed(s: Window) -> Window | None:
    """The forward convolution of dy that is the input gradient of s; None where the strides forbid it."""
    pt, pl = s.kh - 1 - s.pt, s.kw - 1 - s.pl
    if (s.sh, s.sw, s.dh, s.dw) != (1, 1, 1, 1) or min(pt, pl) < 0:
        return None
    return replace(s, h=s.oh, w=s.ow, c=s.o, oh=s.h, ow=s.w, o=s.c, pt=pt, pl=pl)


def classes(s: Window) -> list[list[int]]:
    """Per class of pixels (remainders by the strides) the taps (ky * kw + kx) under which a dy lies."""

    def taps(remainder: int, pad: int, step: int, stride: int, size: int) -> list[int]:
        return [k for k in range(size) if (remainder + pad - k * step) % stride == 0]

    return [
        [ky * s.kw + kx for ky in taps(ry, s.pt, s.dh, s.sh, s.kh) for kx in taps(rx, s.pl, s.dw, s.sw, s.kw)]
        for ry in range(s.sh)
        for rx in range(s.sw)
    ]


def _gradient_panels(c: CpuWriter, s: Window, w: Value, lists: list[list[int]]) -> tuple[list[str], str]:
    """Panels for the input gradient: per list of taps, [taps * o][c]."""
    count, lanes = s.kh * s.kw, c.target.lanes
    if c.frozen(w):

        def change(data: np.ndarray) -> np.ndarray:
            by_tap = data.reshape(s.o, count, s.c).transpose(1, 0, 2)
            parts = [panels(by_tap[used].reshape(-1, s.c), lanes) for used in lists if used]
            return np.concatenate(parts)

        return [], c.blob.put(w.name, f"gradient {lists}", change)
    to = c.scratch(sum(map(len, lists)) * s.o * padded(s.c, lanes))
    packing, at = [], 0
    for i, used in enumerate(filter(None, lists)):
        packing.append(f"static const uint8_t taps_{i}[] = {braces(used)};")
        fields = {"w": c.ptr(w), "panels": f"{to} + {at}", "o": s.o, "taps": count, "c": s.c}
        packing.append(struct("tl_pack_grad", f"p{i}", {**fields, "used": len(used), "list": f"taps_{i}"}))
        packing.append(parallel("tl_pack_grad_panels", f"&p{i}", c.parts(s.macs)))
        at += len(used) * s.o * padded(s.c, lanes)
    return packing, to


def _gradient_fits(n: Node) -> bool:
    s = input_grad_window(n)
    return is_float(n) and s.groups == 1 and max(s.kh, s.kw) <= 15 and not n.attrs["integer"]


@kernel("ConvInputGrad", fits=_gradient_fits)
def input_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    s, (dy, w) = input_grad_window(n), n.inputs[:2]
    assert w is not None
    y, turned = c.ptr(c.ending.out), transposed(s)
    if turned is not None and winograd.pays(c, turned, c.frozen(w)):
        yield from winograd.write(c, turned, c.ptr(dy), w, y, c.finish(), True)
        return
    lists = [list(reversed(range(s.kh * s.kw)))] if turned is not None else classes(s)
    pack, b = _gradient_panels(c, s, w, lists)
    yield from pack
    if is_product(s):
        yield from _product(c, s.positions, s.o, s.c, c.ptr(dy), b, y, c.finish())
    elif turned is not None:
        yield from _dense(c, turned, c.ptr(dy), b, y, c.finish(), "tl_dense_rows")
    else:
        yield from _dense(c, s, c.ptr(dy), b, y, c.finish(), "tl_dense_grad_rows")


def plain_update(n: Node) -> bool:
    """Whether a gradient ends in an fp32 tensor without row factors: what tl_step.h takes."""
    if not n.op.endswith("Update"):
        return True
    w = update_operand(n, "w")
    return (
        w is not None
        and w.dtype == "f32"
        and all(update_operand(n, r) is None for r in ("scale", "fraction"))
    )


def update_of(c: CpuWriter, n: Node) -> str:
    """Declaration of the tl_update that takes a gradient: its own tensor, or the optimizer's step."""
    if n.op.endswith("Update"):
        return update_struct(c, n)
    return f"const tl_update u = {{.rule = TL_STORE, .w = {c.ptr(n.output)}, .row_len = {n.output.size}}};"


def _weight_fits(n: Node) -> bool:
    x = n.inputs[0]
    s = weight_grad_window(n)
    return (
        x is not None and x.dtype == "f32" and plain_update(n) and not n.attrs["depthwise"] and s.groups == 1
    )


@kernel("ConvWeightGrad", "ConvWeightGradUpdate", fits=_weight_fits)
def weight_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    s, (x, dy) = weight_grad_window(n), n.inputs[:2]
    k, parts = s.kh * s.kw * s.c, c.parts(s.macs)
    yield update_of(c, n)
    if lines.fits(s):
        yield from lines.weight_gradient(c, s, c.ptr(x), c.ptr(dy))
        return
    # Rows of dy that are a multiple of 2 KB apart fall into few sets of a cache: those are copied, too.
    if not is_product(s) or c.pick("blocks", s.o % 512 == 0 or s.o * s.c >= WIDE):
        floats = WEIGHTS_DEPTH * (min(k, 24 * c.target.lanes) + s.o) + c.target.lanes  # tl_weights_floats
        sums = c.scratch(s.o * k)
        tiles = c.scratch(parts * floats)
        dense = {"s": shape_value(c, s), "x": c.ptr(x), "dy": c.ptr(dy), "sums": sums, "tiles": tiles}
        yield struct("tl_dense_weights", "g", {**dense, "u": "&u"})
        yield parallel("tl_dense_weights_part", "&g", parts)
        return
    depth = max(64, 32768 // (s.o + s.c) // 8 * 8)
    fields: dict[str, object]
    fields = {"a": c.ptr(dy), "b": c.ptr(x), "m": s.o, "k": s.positions, "n": s.c, "a_row": 1}
    fields |= {"a_depth": s.o, "ldb": s.c, "ldc": s.c, "depth": depth}
    fields |= {"finish": "{.lo = -TL_INFINITY, .hi = TL_INFINITY}"}
    if s.positions >= CHUNKED_POSITIONS:
        sums = c.scratch(CHUNKS * s.o * s.c)
        yield struct("tl_gemm", "g", {**fields, "c": sums})
        yield from chunked(c, "tl_gemm_chunks", "&g", parts, (s.o, s.c), s.c, sums)
        return
    yield struct("tl_gemm", "g", {**fields, "c": c.scratch(s.o * k), "update": "&u"})
    yield parallel("tl_gemm_columns", "&g", parts)


@kernel("BiasGrad", "BiasGradUpdate", fits=plain_update)
def bias_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    dy = n.inputs[0]
    assert dy is not None
    channels = dy.shape[-1]
    yield update_of(c, n)
    sums = c.scratch(CHUNKS * channels + c.target.lanes)
    fields = {"dy": c.ptr(dy), "positions": dy.size // channels, "channels": channels, "sums": sums}
    yield struct("tl_bias_sums", "s", fields)
    parts = c.elements_parts(dy.size)
    yield from chunked(c, "tl_bias_sums_part", "&s", parts, (1, channels), channels, sums)
