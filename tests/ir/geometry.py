"""Random convolutions of rank 0, 1 and 2, and the same in PyTorch (float64, channels first)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import strategies as st

from trainlet.ir.graph import Attrs, Shape


@dataclass(frozen=True)
class Convolution:
    """x (N, *S, C), w (O, *K, C / groups) and the attributes of Conv, all written out."""

    x: Shape
    w: Shape
    strides: Shape
    pads: Shape
    dilations: Shape
    groups: int
    seed: int

    @property
    def rank(self) -> int:
        return len(self.w) - 2

    @property
    def attrs(self) -> Attrs:
        return {
            "strides": self.strides,
            "pads": self.pads,
            "dilations": self.dilations,
            "groups": self.groups,
        }

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@st.composite
def convolutions(draw: st.DrawFn, ranks: tuple[int, ...] = (0, 1, 2)) -> Convolution:
    """Kernels that may be larger than the unpadded operand, uneven padding, depthwise and grouped."""

    def ints(count: int, low: int, high: int) -> Shape:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    rank = draw(st.sampled_from(ranks))
    groups = draw(st.integers(1, 3)) if rank else 1
    per_group = draw(st.integers(1, 3))
    outputs = groups * draw(st.integers(1, 3))
    kernel, strides, dilations = ints(rank, 1, 3), ints(rank, 1, 3), ints(rank, 1, 2)
    pads = ints(2 * rank, 0, 2)
    spatial = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - pads[i] - pads[rank + i]), 6))
        for i, (k, d) in enumerate(zip(kernel, dilations, strict=True))
    )
    batch = draw(st.integers(1, 2))
    return Convolution(
        (batch, *spatial, groups * per_group),
        (outputs, *kernel, per_group),
        strides,
        pads,
        dilations,
        groups,
        draw(st.integers(0, 2**32 - 1)),
    )


def torch_convolution(
    case: Convolution, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None
) -> torch.Tensor:
    """y (N, *S', O) by torch.nn.functional, from x and w in trainlet's layouts."""
    if case.rank == 0:
        return F.linear(x, w, b)
    begin, end = case.pads[: case.rank], case.pads[case.rank :]
    sides = [p for pair in zip(begin[::-1], end[::-1], strict=True) for p in pair]
    function = F.conv1d if case.rank == 1 else F.conv2d
    x, w = F.pad(x.movedim(-1, 1), sides), w.movedim(-1, 1)
    y = function(x, w, b, case.strides, 0, case.dilations, case.groups)
    return y.movedim(1, -1)
