"""A user's samples and labels as the program takes them, or a DataError before anything has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.data import InputTransform
from trainlet.errors import DataError
from trainlet.ir import Value
from trainlet.ir.graph import DTYPES

LAYOUTS = ("NCHW", "NHWC")


def as_array(data: Any) -> np.ndarray:
    """A numpy array of the data: torch tensors without a copy where that is possible."""
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    return np.asarray(data)


@dataclass(frozen=True)
class SampleForm:
    """What samples of a program look like to its user.

    `value` is the program's input; its dimension i is the user's dimension perm[i]. Arrays of the input's own
    type are taken as they are; uint8 pixels become (pixel / 255 - mean) / std (data/transform.py). An array
    that is not contiguous is copied. Everything else is refused.
    """

    value: Value
    perm: tuple[int, ...]
    transform: InputTransform

    @classmethod
    def of(
        cls,
        value: Value,
        layout: str | tuple[int, ...],
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> SampleForm:
        """layout: "NCHW", samples (N, C, *spatial) as PyTorch and ONNX have them; "NHWC", as the program's;
        or the permutation itself."""
        if isinstance(layout, str) and layout not in LAYOUTS:
            raise DataError(f"layout {layout!r} is neither of {', '.join(LAYOUTS)}")
        perm = _permutation(layout, len(value.shape)) if isinstance(layout, str) else tuple(layout)
        return cls(value, perm, InputTransform.of(value, mean, std))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the user gives it."""
        return tuple(self.value.shape[self.perm.index(d)] for d in range(1, len(self.perm)))

    def restored(self, x: np.ndarray) -> np.ndarray:
        """Samples in the program's order of dimensions, as the user has them."""
        return x.transpose(np.argsort(self.perm))

    def batch(self, data: Any, count: int | None = None) -> np.ndarray:
        """Program inputs (N, *shape), C order. `count`: the N it must be.

        Raises DataError for another shape or element type, or where a sample holds NaN or infinity.
        """
        x = as_array(data)
        want = DTYPES[self.value.dtype][0]
        if x.shape[1:] != self.sample_shape or x.ndim == 0 or (count is not None and len(x) != count):
            n = "N" if count is None else count
            raise DataError(
                f"samples have shape {tuple(x.shape)}, the program takes ({n}, "
                f"{', '.join(map(str, self.sample_shape))}){self._hint(x)}"
            )
        if x.dtype != want and x.dtype != np.uint8:
            raise DataError(
                f"samples are {x.dtype}, the program takes {np.dtype(want)} or uint8 pixels: "
                f"convert them, as in x.astype('{np.dtype(want)}')"
            )
        check_finite(x, "samples")
        x = x.transpose(self.perm)
        if x.dtype == np.uint8:
            x = self.transform(x)
        return np.ascontiguousarray(x)

    def _hint(self, x: np.ndarray) -> str:
        if x.shape == self.sample_shape:
            return "; put one sample into a batch of its own, as in x[None]"
        for layout in LAYOUTS if x.shape[1:] != self.sample_shape else ():
            if x.shape[1:] == SampleForm.of(self.value, layout).sample_shape:
                return f": this is {layout}; compile with layout={layout!r}, or transpose it"
        return ""


def _permutation(layout: str, rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1) if layout == "NCHW" and rank > 2 else tuple(range(rank))


@dataclass(frozen=True)
class LabelForm:
    """What labels of a program look like: class numbers (N,), or real targets (N, outputs)."""

    value: Value
    outputs: int

    def batch(self, data: Any, count: int | None = None) -> np.ndarray:
        """Labels as the program's type, C order. Raises DataError where one is no class, or not finite."""
        y = as_array(data)
        shape = () if self.value.dtype == "s32" else (self.outputs,)
        if shape and y.ndim == 1 and self.outputs == 1:
            y = y[:, None]
        if y.ndim == 0 or y.shape[1:] != shape or (count is not None and len(y) != count):
            n = "N" if count is None else count
            raise DataError(
                f"labels have shape {tuple(y.shape)}, the program takes {(n, *shape)}".replace("'", "")
            )
        if self.value.dtype != "s32":
            if y.dtype.kind not in "fiub":
                raise DataError(f"targets are {y.dtype}, the program takes float32")
            check_finite(y, "targets")
            return np.ascontiguousarray(y, np.float32)
        if y.dtype.kind not in "iu":
            raise DataError(f"labels are {y.dtype}, the program takes class numbers as integers")
        if len(y) and not (y.min() >= 0 and y.max() < self.outputs):
            raise DataError(
                f"labels lie in {y.min()}..{y.max()}, the network has classes 0..{self.outputs - 1}"
            )
        return np.ascontiguousarray(y, np.int32)


def check_finite(x: np.ndarray, what: str) -> None:
    """Raises DataError naming the first sample that holds NaN or infinity."""
    if x.dtype.kind != "f" or np.isfinite(x.sum()):  # the sum of finite numbers may still overflow
        return
    good = np.isfinite(x.reshape(len(x), -1)).all(1)
    if not good.all():
        raise DataError(f"{what}: number {int(np.argmin(good))} holds NaN or infinity; nothing was trained")
