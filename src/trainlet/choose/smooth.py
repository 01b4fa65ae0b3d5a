"""Curves through noisy gains: least squares under a shape that gains are known to have."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def concave(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fitted y (n) of the concave curve through (0, 0) nearest to the points, by weighted least squares.

    x ascending and positive. The curve may fall. Exact: the best curve is the plain least-squares fit that
    has just its own kinks, so all 2^(n-1) sets of kinks are tried; meant for a handful of points.
    """
    best, cost = np.zeros_like(y), np.inf
    for count in range(len(x)):
        for kinks in combinations(range(len(x) - 1), count):
            knots = np.array([0.0, *x[list(kinks)], x[-1]])
            basis = np.stack([np.interp(x, knots, unit) for unit in np.eye(len(knots))[1:]], 1)
            root = np.sqrt(weight)
            heights, *_ = np.linalg.lstsq(basis * root[:, None], y * root, rcond=None)
            slopes = np.diff([0.0, *heights]) / np.diff(knots)
            fitted = basis @ heights
            error = float((weight * (y - fitted) ** 2).sum())
            if (np.diff(slopes) <= 1e-12).all() and error < cost - 1e-15:
                best, cost = fitted, error
    return best


def rising(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The nearest sequence that never falls (pool adjacent violators)."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, w in zip(y, weight, strict=True):
        blocks.append([float(value), float(w), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, length = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * total) / (last[1] + total)
            last[1], last[2] = last[1] + total, last[2] + length
    return np.concatenate([np.full(int(n), mean) for mean, _, n in blocks]) if blocks else np.array(y)


def unimodal(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The nearest sequence that rises and then falls (either part may be empty)."""
    best, cost = y, np.inf
    for peak in range(len(y) + 1):
        up = rising(y[:peak], weight[:peak])
        down = rising(y[peak:][::-1], weight[peak:][::-1])[::-1]
        fitted = np.concatenate([up, down])
        error = float((weight * (y - fitted) ** 2).sum())
        if error < cost - 1e-15:
            best, cost = fitted, error
    return best
