"""Sums, clips, masks, means over all positions, and updates of accumulated gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from trainlet.backends.c99.update import update_struct
from trainlet.backends.cpu.convolution import plain_update
from trainlet.backends.cpu.writer import CpuWriter, kernel, parallel, shape_value, struct
from trainlet.ir import Node, Value
from trainlet.ir.ops.optimizers import update_operand
from trainlet.ir.ops.pooling import node_pool


def _each(c: CpuWriter, n: Node) -> Iterable[str]:
    y = n.output
    fields = {"x": c.ptr(n.inputs[0]), "y": c.ptr(c.ending.out), "count": y.size, "finish": c.finish()}
    yield struct("tl_each", "e", fields)
    yield parallel("tl_each_part", "&e", c.elements_parts(y.size))


@kernel("Add", fits=lambda n: n.inputs[0].shape == n.inputs[1].shape)  # type: ignore[union-attr]
def add(c: CpuWriter, n: Node) -> Iterable[str]:
    yield from _each(c, n)


@kernel("Clip")
def clip(c: CpuWriter, n: Node) -> Iterable[str]:
    yield from _each(c, n)


@kernel("MaskGrad", fits=lambda n: n.attrs["factor"] == 1)
def mask_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    yield from _each(c, n)


def _is_mean(n: Node) -> bool:
    s = node_pool(n)
    return n.output.dtype == "f32" and (s.oh, s.ow) == (1, 1) and (s.kh, s.kw) == (s.h, s.w)


def _mean_fields(n: Node) -> dict[str, object]:
    s = node_pool(n)
    return {"n": s.n, "positions": s.h * s.w, "channels": s.c}


@kernel("AveragePool", fits=_is_mean)
def mean(c: CpuWriter, n: Node) -> Iterable[str]:
    x = n.inputs[0]
    assert x is not None
    yield struct("tl_mean_f32", "s", {"x": c.ptr(x), "y": c.ptr(n.output), **_mean_fields(n)})
    yield parallel("tl_mean_part", "&s", c.elements_parts(x.size))


@kernel("AveragePoolGrad", fits=_is_mean)
def mean_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    y, x = c.ptr(n.inputs[0]), c.ptr(n.output)
    yield struct("tl_mean_f32", "s", {"x": x, "y": y, **_mean_fields(n)})
    yield parallel("tl_mean_grad_part", "&s", c.elements_parts(n.output.size))


def _maxpool_fields(c: CpuWriter, n: Node, x: Value | None) -> dict[str, object]:
    s = node_pool(n)
    return {"s": shape_value(c, replace(s, groups=s.c)), "x": c.ptr(x)}


@kernel("MaxPool", fits=lambda n: n.output.dtype == "f32")
def max_pool(c: CpuWriter, n: Node) -> Iterable[str]:
    yield struct("tl_maxpool", "p", {**_maxpool_fields(c, n, n.inputs[0]), "y": c.ptr(n.output)})
    yield parallel("tl_maxpool_rows", "&p", c.elements_parts(n.output.size))


@kernel("MaxPoolGrad", fits=lambda n: n.inputs[1].dtype == "f32")  # type: ignore[union-attr]
def max_pool_gradient(c: CpuWriter, n: Node) -> Iterable[str]:
    dy, x = n.inputs
    fields = {**_maxpool_fields(c, n, x), "dy": c.ptr(dy), "dx": c.ptr(n.output)}
    yield struct("tl_maxpool", "p", fields)
    yield parallel("tl_maxpool_grad_channels", "&p", c.elements_parts(n.output.size))


@kernel("Update", fits=plain_update)
def update(c: CpuWriter, n: Node) -> Iterable[str]:
    w = update_operand(n, "w")
    assert w is not None
    yield update_struct(c, n)
    factor = "factor" if update_operand(n, "factor") is not None else "1.0f"
    fields = {"u": "&u", "grad": c.ptr(n.inputs[0]), "count": w.size, "factor": factor}
    yield struct("tl_step_all", "s", fields)
    yield parallel("tl_step_part", "&s", c.elements_parts(w.size))
