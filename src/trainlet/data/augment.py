"""Random flips and shifts of images, reproducible sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augment:
    """A horizontal flip with probability one half, and a shift of up to `shift` of the height and width.

    What a sample gets depends on (seed, epoch, its index) alone: not on the batch, nor on what ran
    before. A shifted image is what a crop of the image padded by that share would show; the padding
    repeats the edge.
    """

    seed: int = 0
    flip: bool = True
    shift: float = 0.125

    def __call__(self, images: np.ndarray, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Augmented images (N, H, W, C) of any dtype; `indices` (N) are their places in the data set."""
        n, h, w, _ = images.shape
        flips, dy, dx = self._draw(np.asarray(indices), epoch, h, w)
        rows = np.clip(np.arange(h) + dy[:, None], 0, h - 1)
        columns = np.clip(np.arange(w) + dx[:, None], 0, w - 1)
        columns = np.where(flips[:, None], columns[:, ::-1], columns)
        return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _draw(
        self, indices: np.ndarray, epoch: int, h: int, w: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each sample: flipped or not, and rows and columns it is shifted by."""
        bits = random_bits(self.seed, epoch, indices, 3)
        most = [round(self.shift * size) for size in (h, w)]
        dy, dx = ((bits[:, 1 + i] % np.uint64(2 * m + 1)).astype(np.int64) - m for i, m in enumerate(most))
        return (bits[:, 0] & np.uint64(1)).astype(bool) & self.flip, dy, dx


def random_bits(seed: int, epoch: int, indices: np.ndarray, count: int) -> np.ndarray:
    """uint64 (N, count): `count` random words for each index, from a counter, without state."""
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch))
    counters = np.asarray(indices, np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    return _mix(_mix(counters) ^ key)


def _mix(z: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), elementwise modulo 2^64."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
