"""TFLite's fixed-point rescaling: multiplication by a real number in integers, bit for bit.

A real factor is (multiplier, shift): factor = multiplier * 2^(shift - 31), 2^30 <= multiplier < 2^31. The
product is rounded twice, as in TFLite's reference kernels and CMSIS-NN (Jacob et al., arXiv:1712.05877,
section 2.3): to the high 32 bits half up, then after the shift half away from 0. TFLite's fully connected
layers round it once, half up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def multiplier_and_shift(factor: float) -> tuple[int, int]:
    """The factor (>= 0) as a 31-bit multiplier and a power of two; below 2^-32 it is 0."""
    mantissa, shift = math.frexp(factor)
    multiplier = math.floor(mantissa * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (multiplier, shift) if shift >= -31 else (0, 0)


def rescaling(factors: Iterable[float]) -> np.ndarray:
    """s32 (2, C): multipliers, then shifts, of one factor per channel."""
    return np.array([multiplier_and_shift(float(f)) for f in factors], np.int32).T.copy()


def real_factors(rescale: np.ndarray) -> np.ndarray:
    """f32 (C): the factors that `rescaling` stored."""
    factors: np.ndarray = np.ldexp(rescale[0].astype(np.float64), rescale[1] - 31).astype(np.float32)
    return factors


def wrap(x: np.ndarray) -> np.ndarray:
    """x (int64) as 32-bit arithmetic leaves it."""
    return x.astype(np.int32).astype(np.int64)


def multiply(
    x: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, once: bool = False
) -> np.ndarray:
    """x (integers of 32 bits) times the factor, int64; multiplier and shift broadcast against x.

    `once`: one rounding (shift <= 30).
    """
    if once:
        places = 31 - np.asarray(shift, np.int64)
        return (
            x.astype(np.int64) * np.asarray(multiplier, np.int64) + (np.int64(1) << (places - 1))
        ) >> places
    left, right = np.maximum(shift, 0), np.maximum(-np.asarray(shift), 0)
    wide = wrap(x.astype(np.int64) << left)
    high = (wide * np.asarray(multiplier, np.int64) + (1 << 30)) >> 31
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))
