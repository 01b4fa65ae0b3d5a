"""Activations behind the frozen prefix, kept per sample: a sample seen before skips the prefix, exactly."""

from __future__ import annotations

import math

import numpy as np

from trainlet.ir.graph import DTYPES
from trainlet.runtime.host import HostProgram


class PrefixCache:
    """Boundary bytes of every sample of a set, for one function of a program.

    Valid only while a sample's input does not change: not with augmentation.
    """

    def __init__(self, host: HostProgram, function: str, samples: int) -> None:
        self.host, self.function = host, function
        self.group = 1 if function == "predict" else host.batch
        shapes = host.boundary_shapes(function)
        self._bytes = [math.prod(s[1:]) * DTYPES[d][1] // 8 for d, s in shapes]
        self._rows = np.zeros((samples, sum(self._bytes)), np.uint8)
        self._known = np.zeros(samples, bool)

    @staticmethod
    def bytes_needed(host: HostProgram, function: str, samples: int) -> int | None:
        """Size of a full cache; None where the prefix is empty or mixes samples."""
        group = 1 if function == "predict" else host.batch
        shapes = host.boundary_shapes(function)
        if not host.manifest["functions"][function]["prefix_steps"] or any(s[0] != group for _, s in shapes):
            return None
        return samples * sum(math.prod(s[1:]) * DTYPES[d][1] // 8 for d, s in shapes)

    def get(self, indices: np.ndarray, load: object) -> np.ndarray:
        """Boundary of the samples at `indices` (group of them); load(indices) gives samples not seen yet."""
        if not self._known[indices].all():
            self._store(indices, self.host.prefix(self.function, load(indices)))  # type: ignore[operator]
        rows, parts, at = self._rows[indices], [], 0
        for size in self._bytes:
            parts.append(rows[:, at : at + size].reshape(-1))
            at += size
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def _store(self, indices: np.ndarray, boundary: np.ndarray) -> None:
        source = column = 0
        for size in self._bytes:
            block = boundary[source : source + size * self.group].reshape(self.group, size)
            self._rows[indices, column : column + size] = block
            source += size * self.group
            column += size
        self._known[indices] = True
