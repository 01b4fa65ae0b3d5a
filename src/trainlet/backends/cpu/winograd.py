"""Winograd's F(4x4, 3x3): when it pays, and the transformed weights of frozen layers."""

from __future__ import annotations

import numpy as np

from trainlet.backends.cpu.weights import padded, panels
from trainlet.backends.cpu.writer import CpuWriter, parallel, struct
from trainlet.ir import Value
from trainlet.ir.ops.window import Window

POINTS = 36
TRANSFORM = 8  # multiply-accumulates that a transformed element costs as much time as
PACKING = 20  # the same of a weight transformed at run time, most of it memory
G = np.array(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
     [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip


def tiles(s: Window) -> int:
    """4x4 tiles of results."""
    return s.n * -(-s.oh // 4) * -(-s.ow // 4)


def pays(c: CpuWriter, s: Window, frozen: bool) -> bool:
    """Whether fewer products outweigh the transforms (by count; frozen weights are transformed already)."""
    if (s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.groups) != (3, 3, 1, 1, 1, 1, 1) or min(s.c, s.o) < 16:
        return False
    e, lanes = c.ending, c.target.lanes
    if (e.mask is not None or e.keep is not None) and (lanes < 8 or s.o % lanes):
        return False  # masks are only written register by register
    count = tiles(s)
    cost = POINTS * (count * (s.c * s.o + TRANSFORM * (s.c + s.o)) + (0 if frozen else PACKING * s.c * s.o))
    return c.pick("winograd", cost < s.macs)


def weights(w: np.ndarray, lanes: int, gradient: bool) -> np.ndarray:
    """w (o, 3, 3, c) as panels, point after point; in float64 until the end."""
    taps = w.astype(np.float64)
    taps = taps[:, ::-1, ::-1] if gradient else taps
    points = np.einsum("yi,xj,oijc->yxoc", G, G, taps).reshape(POINTS, *w.shape[::3])
    turned = points if gradient else points.transpose(0, 2, 1)
    return np.concatenate([panels(p.astype(np.float32), lanes) for p in turned])


def write(c: CpuWriter, s: Window, x: str, w: Value, y: str, finish: str, gradient: bool) -> list[str]:
    """Statements; s, x and y are of the convolution that is computed, for a gradient that of dy."""
    parts, lanes, lines = c.parts(s.macs), c.target.lanes, []
    if c.frozen(w):
        b = c.blob.put(w.name, f"winograd {gradient}", lambda d: weights(d.reshape(w.shape), lanes, gradient))
    else:
        b = c.scratch(POINTS * s.c * padded(s.o, lanes))
        o, channels = w.shape[0], w.shape[-1]
        pack = {"w": c.ptr(w), "panels": b, "o": o, "c": channels, "gradient": int(gradient)}
        lines = [struct("tl_winograd_pack", "pack", pack), parallel("tl_winograd_pack_part", "&pack", parts)]
    block = 48 if s.c + s.o >= 512 else 24  # tl_winograd_block
    floats = POINTS * block * (padded(s.c, lanes) + padded(s.o, lanes))
    fields = {"s": c.shape(s)[1:], "x": x, "panels": b, "y": y, "finish": finish}
    fields["tiles"] = c.scratch(parts * floats)
    return [*lines, struct("tl_winograd", "d", fields), parallel("tl_winograd_part", "&d", parts)]
