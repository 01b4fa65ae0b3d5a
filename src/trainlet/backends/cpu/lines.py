"""Convolutions of few channels (images) without patches: tl_lines.h."""

from __future__ import annotations

from trainlet.backends.cpu.weights import padded
from trainlet.backends.cpu.writer import CHUNKS, CpuWriter, chunked, parallel, shape_value, struct
from trainlet.ir.ops.window import Window

FEW = 4  # channels; with more, patches are long enough to be copied fast
MOST_KERNEL_ROWS = 8  # TL_MOST_LINES


def fits(s: Window) -> bool:
    """A dense window over few channels, not dilated."""
    return (s.groups, s.dh, s.dw) == (1, 1, 1) and s.c <= FEW and 1 < s.kh <= MOST_KERNEL_ROWS


def line_floats(s: Window) -> int:
    """tlline_floats of tl_lines.h."""
    return max((s.ow - 1) * s.sw + s.kw, s.pl + s.w) * s.c


def forward(c: CpuWriter, s: Window, x: str, panels: str, y: str, finish: str) -> list[str]:
    """Statements of the convolution."""
    parts = c.parts(s.macs)
    lines = c.scratch(parts * s.kh * line_floats(s))
    fields = {"s": shape_value(c, s), "x": x, "panels": panels, "y": y, "finish": finish, "lines": lines}
    return [struct("tl_lines", "d", fields), parallel("tl_lines_rows", "&d", parts)]


def weight_gradient(c: CpuWriter, s: Window, x: str, dy: str) -> list[str]:
    """Statements of the weights' gradient; the update is called u."""
    k, parts, pitch = s.kh * s.kw * s.c, c.parts(s.macs), padded(s.o, c.target.lanes)
    sums, lines = c.scratch(CHUNKS * k * pitch), c.scratch(parts * s.kh * line_floats(s))
    fields = {"s": shape_value(c, s), "x": x, "dy": dy, "sums": sums, "lines": lines}
    return [
        struct("tl_lines_weights", "g", fields),
        *chunked(c, "tl_lines_weights_part", "&g", parts, (k, s.o), pitch, sums, turned=True),
    ]
