"""Geometry and numpy arithmetic of sliding windows: convolutions and pools of rank 0, 1 or 2.

Rank 0 is a matrix product (Gemm), rank 1 has height 1. Kernels and the interpreter only see rank 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from trainlet.ir.graph import Attrs, Shape
from trainlet.ir.ops.table import check


@dataclass(frozen=True)
class Window:
    """One convolution or pool, every rank brought to 2: x (n, h, w, c), y (n, oh, ow, o)."""

    n: int
    h: int
    w: int
    c: int
    oh: int
    ow: int
    o: int
    kh: int
    kw: int
    sh: int = 1
    sw: int = 1
    pt: int = 0
    pl: int = 0
    pb: int = 0
    pr: int = 0
    dh: int = 1
    dw: int = 1
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.c == self.o

    @property
    def positions(self) -> int:
        return self.n * self.oh * self.ow

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward product, padding counted as if it were data."""
        return self.positions * self.o * self.kh * self.kw * (self.c // self.groups)


def _pair(values: object, rank: int, fill: int) -> tuple[int, int]:
    given = tuple(values) if isinstance(values, tuple) else ()
    full = tuple(int(v) for v in given) or (fill,) * rank
    check(len(full) == rank, f"{len(full)} spatial attributes for {rank} spatial dimensions")
    return (fill,) * (2 - rank) + full  # type: ignore[return-value]


def _pads(values: object, rank: int) -> tuple[int, int, int, int]:
    """ONNX order: all begins, then all ends. Returns top, left, bottom, right."""
    pads = tuple(values) if isinstance(values, tuple) and values else (0,) * (2 * rank)
    check(len(pads) == 2 * rank, f"pads {pads} for {rank} spatial dimensions")
    begin, end = pads[:rank], pads[rank:]
    zero = (0,) * (2 - rank)
    return (*zero, *begin, *zero, *end)  # type: ignore[return-value]


def window(x: Shape, o: int, kernel: Shape, attrs: Attrs, groups: int = 1) -> Window:
    """Window of a kernel of `kernel` spatial sizes over x (N, *spatial, C), o output channels."""
    rank = len(kernel)
    if rank == 0:
        n = math.prod(x[:-1])
        return Window(n, 1, 1, x[-1], 1, 1, o, 1, 1)
    check(len(x) == rank + 2, f"{rank}-D window over an operand of shape {x}")
    (kh, kw), (sh, sw) = _pair(kernel, rank, 1), _pair(attrs.get("strides"), rank, 1)
    dh, dw = _pair(attrs.get("dilations"), rank, 1)
    pt, pl, pb, pr = _pads(attrs.get("pads"), rank)
    h, w = _pair(tuple(x[1:-1]), rank, 1)
    check(min(sh, sw, dh, dw) >= 1 and min(pt, pl, pb, pr) >= 0, "negative or zero stride or pad")
    oh = (h + pt + pb - dh * (kh - 1) - 1) // sh + 1
    ow = (w + pl + pr - dw * (kw - 1) - 1) // sw + 1
    check(oh > 0 and ow > 0, f"kernel {kernel} does not fit an operand of shape {x}")
    return Window(x[0], h, w, x[-1], oh, ow, o, kh, kw, sh, sw, pt, pl, pb, pr, dh, dw, groups)


def conv_window(x: Shape, w: Shape, attrs: Attrs) -> Window:
    """Window of a convolution of x (N, *spatial, C) by w (O, *kernel, C / groups)."""
    groups = int(attrs.get("groups", 1))  # type: ignore[arg-type]
    check(len(w) >= 2 and len(x) >= 2, f"operand shapes {x} and {w}")
    check(
        groups >= 1 and x[-1] % groups == 0 and w[0] % groups == 0,
        f"{x[-1]} inputs and {w[0]} outputs do not split into {groups} groups",
    )
    check(
        w[-1] * groups == x[-1],
        f"weight {w} takes {w[-1] * groups} input channels, the operand {x} has {x[-1]}",
    )
    return window(x, w[0], w[1:-1], attrs, groups)


def out_shape(x: Shape, s: Window, rank: int) -> Shape:
    """Shape of the result of window `s` over x, in x's own rank."""
    if rank == 0:
        return (*x[:-1], s.o)
    return (s.n, s.ow, s.o) if rank == 1 else (s.n, s.oh, s.ow, s.o)


def patches(x: np.ndarray, s: Window, fill: float = 0) -> np.ndarray:
    """Windows of x (n, h, w, c) as a view (n, oh, ow, kh, kw, c); outside is `fill`."""
    padded = np.pad(
        x.reshape(s.n, s.h, s.w, s.c),
        ((0, 0), (s.pt, s.pb), (s.pl, s.pr), (0, 0)),
        constant_values=fill,
    )
    span = (s.dh * (s.kh - 1) + 1, s.dw * (s.kw - 1) + 1)
    view = sliding_window_view(padded, span, axis=(1, 2))  # n, h', w', c, span
    view = view[:, :: s.sh, :: s.sw, :, :: s.dh, :: s.dw][:, : s.oh, : s.ow]
    return view.transpose(0, 1, 2, 4, 5, 3)


def unpatch(d: np.ndarray, s: Window) -> np.ndarray:
    """Adjoint of `patches`: sums d (n, oh, ow, kh, kw, c) back into (n, h, w, c)."""
    out = np.zeros((s.n, s.h + s.pt + s.pb, s.w + s.pl + s.pr, s.c), d.dtype)
    for i in range(s.kh):
        for j in range(s.kw):
            y, x = i * s.dh, j * s.dw
            out[:, y : y + s.sh * s.oh : s.sh, x : x + s.sw * s.ow : s.sw] += d[:, :, :, i, j]
    return out[:, s.pt : s.pt + s.h, s.pl : s.pl + s.w]


def correlate(x: np.ndarray, w: np.ndarray, s: Window) -> np.ndarray:
    """y (n, oh, ow, o) of x (n, h, w, c) and w (o, kh, kw, c / groups), in the operands' dtype."""
    cols, g = patches(x, s), s.groups
    w = w.reshape(s.o, s.kh * s.kw, s.c // g)
    if s.depthwise:
        return np.einsum("nyxtc,ct->nyxc", cols.reshape(s.n, s.oh, s.ow, -1, s.c), w[:, :, 0])
    cols = cols.reshape(s.positions, s.kh * s.kw, g, s.c // g)
    y = [
        cols[:, :, i].reshape(s.positions, -1)
        @ w[i * (s.o // g) : (i + 1) * (s.o // g)].reshape(s.o // g, -1).T
        for i in range(g)
    ]
    return np.concatenate(y, axis=1).reshape(s.n, s.oh, s.ow, s.o)


def correlate_input(dy: np.ndarray, w: np.ndarray, s: Window) -> np.ndarray:
    """dx (n, h, w, c): the transpose of `correlate` in x."""
    g, dy = s.groups, dy.reshape(s.positions, s.o)
    w = w.reshape(s.o, s.kh * s.kw, s.c // g)
    if s.depthwise:
        d = np.einsum("pc,ct->ptc", dy, w[:, :, 0])
    else:
        og = s.o // g
        parts = [
            (dy[:, i * og : (i + 1) * og] @ w[i * og : (i + 1) * og].reshape(og, -1)).reshape(
                s.positions, s.kh * s.kw, s.c // g
            )
            for i in range(g)
        ]
        d = np.concatenate(parts, axis=2)
    return unpatch(d.reshape(s.n, s.oh, s.ow, s.kh, s.kw, s.c), s)


def correlate_weight(x: np.ndarray, dy: np.ndarray, s: Window) -> np.ndarray:
    """dw (o, kh, kw, c / groups): the transpose of `correlate` in w."""
    g, og = s.groups, s.o // s.groups
    cols, dy = patches(x, s), dy.reshape(s.positions, s.o)
    if s.depthwise:
        cols = cols.reshape(s.positions, s.kh * s.kw, s.c)
        return np.einsum("pc,ptc->ct", dy, cols).reshape(s.o, s.kh, s.kw, 1)
    cols = cols.reshape(s.positions, s.kh * s.kw, g, s.c // g)
    dw = [dy[:, i * og : (i + 1) * og].T @ cols[:, :, i].reshape(s.positions, -1) for i in range(g)]
    return np.concatenate(dw).reshape(s.o, s.kh, s.kw, s.c // g)
