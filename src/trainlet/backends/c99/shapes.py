"""Calls of pools and of kernels that move elements."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trainlet.backends.c99.writer import C_TYPES, Writer, braces, dims4, kernel, number
from trainlet.ir import Node, Value
from trainlet.ir.graph import DTYPES
from trainlet.ir.ops.pooling import mean_factor, node_pool


def _size(v: Value | None) -> int:
    assert v is not None
    return DTYPES[v.dtype][1] // 8


def _mean(c: Writer, n: Node, x: Value) -> str:
    """Initializer of a tl_mean."""
    kind, s, y = f"TL_MEAN_{str(n.attrs['rounding']).upper()}", node_pool(n), n.output
    if n.attrs["rounding"] != "rescaled":
        return braces((kind, 0, 0, 0, 0))
    return braces((kind, c.zero(x), *mean_factor(c.scale(x), c.scale(y), s.kh * s.kw), c.zero(y)))


@kernel("AveragePool", "MaxPool")
def pool(c: Writer, n: Node) -> Iterable[str]:
    x = n.inputs[0]
    assert x is not None
    head = f"{c.shape(node_pool(n))}, {c.ptr(x)}"
    if n.op == "MaxPool":
        yield f"tl_maxpool_{x.dtype}({head}, {c.ptr(n.output)});"
        return
    if n.attrs["rounding"] != "even" and x.dtype == "s8":
        yield f"const tl_mean mean = {_mean(c, n, x)};"
        yield f"tl_avgpool_s8_fixed({head}, &mean, {c.ptr(n.output)});"
        return
    include = int(bool(n.attrs["count_include_pad"]))
    zero = f"{c.zero(x)}, " if x.dtype == "s8" else ""
    yield f"tl_avgpool_{x.dtype}({head}, {zero}{include}, {c.ptr(n.output)});"


@kernel("AveragePoolGrad")
def average_pool_grad(c: Writer, n: Node) -> Iterable[str]:
    include = int(bool(n.attrs["count_include_pad"]))
    yield f"tl_avgpool_grad({c.shape(node_pool(n))}, {c.ptr(n.inputs[0])}, {include}, {c.ptr(n.output)});"


@kernel("MaxPoolGrad")
def max_pool_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, x = n.inputs
    assert x is not None
    sides = f"NULL, {c.ptr(x)}" if x.dtype == "f32" else f"{c.ptr(x)}, NULL"
    yield f"tl_maxpool_grad({c.shape(node_pool(n))}, {sides}, {c.ptr(dy)}, {c.ptr(n.output)});"


@kernel("Reshape")
def reshape(c: Writer, n: Node) -> Iterable[str]:
    return ()


@kernel("Transpose")
def transpose(c: Writer, n: Node) -> Iterable[str]:
    x, perm = n.inputs[0], tuple(n.attrs["perm"])  # type: ignore[arg-type]
    assert x is not None
    dims4(x.shape, n)
    rank = len(perm)
    yield f"static const int32_t dims[] = {braces(x.shape)}, perm[] = {braces(perm)};"
    yield f"tl_transpose({_size(x)}, {rank}, dims, perm, {c.ptr(x)}, {c.ptr(n.output)});"


@kernel("Concat")
def concat(c: Writer, n: Node) -> Iterable[str]:
    axis, at, y = int(n.attrs["axis"]), 0, n.output  # type: ignore[arg-type]
    rows, size = math.prod(y.shape[:axis]), _size(y)
    stride = y.bytes // rows
    for v in n.operands():
        row = v.bytes // rows
        yield f"tl_copy_rows({c.ptr(y)} + {at // size}, {stride}, {c.ptr(v)}, {row}, {row}, {rows});"
        at += row


@kernel("Pad")
def pad(c: Writer, n: Node) -> Iterable[str]:
    x, pads = n.inputs[0], tuple(n.attrs["pads"])  # type: ignore[arg-type]
    assert x is not None
    rank = len(x.shape)
    before, after = dims4(pads[:rank], n, 0), dims4(pads[rank:], n, 0)
    yield f"static const int32_t dims[4] = {braces(dims4(x.shape, n))};"
    yield f"static const int32_t before[4] = {braces(before)}, after[4] = {braces(after)};"
    value = float(n.attrs["value"])  # type: ignore[arg-type]
    literal = number(value) if x.dtype == "f32" else str(int(value))
    yield f"static const {C_TYPES[x.dtype]} value = {literal};"
    yield f"tl_pad({_size(x)}, dims, before, after, &value, {c.ptr(x)}, {c.ptr(n.output)});"


@kernel("Slice")
def slice_(c: Writer, n: Node) -> Iterable[str]:
    x = n.inputs[0]
    assert x is not None
    starts, sizes = tuple(n.attrs["starts"]), tuple(n.attrs["sizes"])  # type: ignore[arg-type]
    yield f"static const int32_t dims[4] = {braces(dims4(x.shape, n))};"
    yield f"static const int32_t starts[4] = {braces(dims4(starts, n, 0))};"
    yield f"static const int32_t sizes[4] = {braces(dims4(sizes, n))};"
    yield f"tl_slice({_size(x)}, dims, starts, sizes, {c.ptr(x)}, {c.ptr(n.output)});"
