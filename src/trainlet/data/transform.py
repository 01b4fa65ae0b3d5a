"""What turns stored samples into the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainlet.errors import DataError
from trainlet.ir.graph import Quant, Value

Numbers = float | Sequence[float] | None
# (scale, zero point) of int8 inputs that take pixel - 128: the published int8 networks (int8.md), and
# TFLite's image networks, whose integers are the pixels, of the real range -1 to 1 or 0 to 255.
PIXEL_INPUTS = ((2 / 255, 0), (2 / 255, -1), (1 / 128, 0), (1 / 128, -1), (1.0, -128))


@dataclass(frozen=True)
class InputTransform:
    """Stored sample -> network input, by the type it is stored in and the type the network takes.

    stored             f32 input                  s8 input
    uint8 (pixels)     (pixel / 255 - mean)/std   pixel - 128 if the network takes pixels as they are,
                                                  that is one of PIXEL_INPUTS, and no mean or std given;
                                                  otherwise the f32 input, quantized
    int8               as it is                   as it is: quantized already
    other numbers      as it is                   quantized

    `mean` and `std` hold one number, or one per channel; they concern pixels alone. Quantized means
    rint(real / scale) + zero_point, clamped.
    """

    dtype: str
    quant: Quant | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, value: Value, mean: Numbers = None, std: Numbers = None) -> InputTransform:
        """The transform for a graph's input. Raises DataError where mean or std do not fit its channels."""
        if value.dtype not in ("f32", "s8") or (value.dtype == "s8" and value.quant is None):
            raise DataError(f"input {value.name} is {value.dtype}; data goes to f32 or quantized s8 inputs")
        means, stds = _per_channel(value, "mean", mean, 0.0), _per_channel(value, "std", std, 1.0)
        if min(stds) <= 0:
            raise DataError(f"std {min(stds):g} is not positive")
        return cls(value.dtype, value.quant, means, stds)

    @property
    def reference(self) -> bool:
        """Whether pixels become pixel - 128."""
        q = self.quant
        return (
            self.dtype == "s8"
            and q is not None
            and not isinstance(q.scale, str)
            and any(q.zero_point == zero and abs(q.scale / scale - 1) < 1e-5 for scale, zero in PIXEL_INPUTS)
            and self.mean == (0.0,)
            and self.std == (1.0,)
        )

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Network input of stored samples (N, …, C): the same shape, float32 or int8."""
        if stored.dtype == np.uint8:
            return self._pixels(stored)
        if stored.dtype == np.int8:
            return stored if self.dtype == "s8" else stored.astype(np.float32)
        return self._quantized(stored.astype(np.float32))

    def _pixels(self, stored: np.ndarray) -> np.ndarray:
        if self.reference:
            return (stored.astype(np.int16) - 128).astype(np.int8)
        table = self._table()
        return table[stored, 0] if table.shape[1] == 1 else table[stored, np.arange(table.shape[1])]

    def _table(self) -> np.ndarray:
        """(256, 1 or C): the input each pixel value becomes."""
        pixel = np.arange(256, dtype=np.float64)[:, None] / 255
        return self._quantized(((pixel - np.array(self.mean)) / np.array(self.std)).astype(np.float32))

    def _quantized(self, real: np.ndarray) -> np.ndarray:
        from trainlet.quantize.samples import quantize_array

        return real if self.quant is None or self.dtype == "f32" else quantize_array(real, self.quant)


def _per_channel(value: Value, word: str, given: Numbers, default: float) -> tuple[float, ...]:
    numbers = np.atleast_1d(np.asarray(default if given is None else given, np.float64))
    if numbers.shape not in ((1,), value.shape[-1:]):
        raise DataError(f"{word} has {numbers.size} numbers, input {value.name} {value.shape[-1]} channels")
    if not np.isfinite(numbers).all():
        raise DataError(f"{word} {given} is not finite")
    return tuple(numbers.tolist())
