"""Activations behind the frozen prefix, kept per sample: a sample seen before skips the prefix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainlet.errors import DataError
from trainlet.ir.graph import DTYPES
from trainlet.runtime.host import HostProgram

PRECISIONS = {"fp32": 4, "fp16": 2, "int8": 1}  # bytes an element
LIMIT_BYTES = 2 * 2**30
SCALE_BYTES = 4
Load = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CacheOptions:
    """Where activations are kept. `file`: on disk, overwritten (None: in memory). `limit_bytes`: a larger
    cache is not begun. precision: "fp32" is exact; "fp16" and "int8" (a scale for each sample and tensor)
    take a half and a quarter of the bytes, and PrefixCache.worst_error says what that costs."""

    file: Path | None = None
    limit_bytes: int = LIMIT_BYTES
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise DataError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class _Part:
    """One tensor of the boundary: bytes of one sample as the program has it, and as it is stored."""

    kind: str  # "as it is", "fp16", "int8"
    bytes: int
    stored_bytes: int


@dataclass
class PrefixCache:
    """Boundary of every sample of a set, for one function of a program.

    Valid only while a sample's input does not change: not with augmentation. `worst_error`: largest
    difference between a stored activation and the true one, relative to the largest activation of its sample
    and tensor.
    """

    host: HostProgram
    function: str
    samples: int
    options: CacheOptions = field(default_factory=CacheOptions)
    worst_error: float = 0.0
    computed: int = 0  # samples whose prefix ran
    skipped: int = 0  # samples whose prefix did not have to
    prefix_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.group = 1 if self.function == "predict" else self.host.batch
        self._parts = _parts(self.host, self.function, self.options.precision)
        width = sum(p.stored_bytes for p in self._parts)
        self.bytes = self.samples * width
        self._rows = _rows(self.options.file, (self.samples, width))
        self._known = np.zeros(self.samples, bool)

    @staticmethod
    def bytes_needed(
        host: HostProgram, function: str, samples: int, options: CacheOptions | None = None
    ) -> int | None:
        """Size of a full cache; None where the prefix is empty or mixes samples."""
        group = 1 if function == "predict" else host.batch
        shapes = host.boundary_shapes(function)
        empty = not host.manifest["functions"][function]["prefix_steps"]
        if empty or any(s[:1] != (group,) or d == "u1" for d, s in shapes):
            return None
        precision = "fp32" if options is None else options.precision
        return samples * sum(p.stored_bytes for p in _parts(host, function, precision))

    @property
    def saved_seconds(self) -> float:
        """Time that was not spent on prefixes, by the mean of those that ran."""
        return self.skipped * self.prefix_seconds / self.computed if self.computed else 0.0

    @property
    def text(self) -> str:
        """One line for the user."""
        where = "memory" if self.options.file is None else str(self.options.file)
        error = "exact" if self.worst_error == 0 else f"largest relative error {self.worst_error:.1e}"
        return (
            f"frozen prefix skipped for {self.skipped:,} of {self.skipped + self.computed:,} samples: "
            f"{self.saved_seconds:.2f} s saved, {self.bytes:,} bytes in {where} "
            f"({self.options.precision}, {error})"
        )

    def get(self, indices: np.ndarray, load: Load) -> np.ndarray:
        """Boundary of the samples at `indices` (group of them); load(indices) gives samples not seen yet."""
        if not self._known[indices].all():
            started = time.perf_counter()
            boundary = self.host.prefix(self.function, load(indices))
            self.prefix_seconds += time.perf_counter() - started
            self.computed += len(indices)
            self._store(indices, boundary)
        else:
            self.skipped += len(indices)
        rows, parts, at = self._rows[indices], [], 0
        for p in self._parts:
            parts.append(_unpack(rows[:, at : at + p.stored_bytes], p).reshape(-1))
            at += p.stored_bytes
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def _store(self, indices: np.ndarray, boundary: np.ndarray) -> None:
        source = column = 0
        for p in self._parts:
            block = boundary[source : source + p.bytes * self.group].reshape(self.group, p.bytes)
            packed = _pack(block, p)
            self._rows[indices, column : column + p.stored_bytes] = packed
            if p.kind != "as it is":
                self.worst_error = max(self.worst_error, _error(block, _unpack(packed, p)))
            source += p.bytes * self.group
            column += p.stored_bytes
        self._known[indices] = True


def _parts(host: HostProgram, function: str, precision: str) -> list[_Part]:
    found = []
    for dtype, shape in host.boundary_shapes(function):
        size = math.prod(shape[1:])
        count = size * DTYPES[dtype][1] // 8
        if dtype != "f32" or precision == "fp32":
            found.append(_Part("as it is", count, count))
        else:
            found.append(_Part(precision, count, SCALE_BYTES + size * PRECISIONS[precision]))
    return found


def _rows(file: Path | None, shape: tuple[int, int]) -> np.ndarray:
    if file is None:
        return np.zeros(shape, np.uint8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return np.memmap(file, np.uint8, "w+", shape=(shape[0], max(1, shape[1])))
    except OSError as error:
        raise DataError(f"cannot keep activations in {file}: {error.strerror or error}") from None


def _pack(block: np.ndarray, p: _Part) -> np.ndarray:
    """(group, bytes) -> (group, stored_bytes)."""
    if p.kind == "as it is":
        return block
    real = np.ascontiguousarray(block).view(np.float32)
    largest = np.abs(real).max(1, keepdims=True)
    scale = (largest / np.float32(127 if p.kind == "int8" else 1)).astype(np.float32)
    scale[scale == 0] = 1
    kept = np.rint(real / scale).astype(np.int8) if p.kind == "int8" else (real / scale).astype(np.float16)
    return np.concatenate([scale.view(np.uint8), kept.view(np.uint8)], axis=1)


def _unpack(stored: np.ndarray, p: _Part) -> np.ndarray:
    """(group, stored_bytes) -> (group, bytes)."""
    if p.kind == "as it is":
        return stored
    scale = np.ascontiguousarray(stored[:, :4]).view(np.float32)
    numbers = np.ascontiguousarray(stored[:, 4:])
    kept: np.ndarray = numbers.view(np.int8) if p.kind == "int8" else numbers.view(np.float16)
    return (kept * scale).astype(np.float32).view(np.uint8)


def _error(true: np.ndarray, stored: np.ndarray) -> float:
    a, b = (np.ascontiguousarray(x).view(np.float32) for x in (true, stored))
    largest = np.abs(a).max(1)
    return float((np.abs(a - b).max(1) / np.where(largest > 0, largest, 1)).max())


def prefix_cache(
    host: HostProgram, function: str, samples: int, options: CacheOptions
) -> tuple[PrefixCache | None, str]:
    """A cache for `samples` samples, or why there is none."""
    needed = PrefixCache.bytes_needed(host, function, samples, options)
    if needed is None:
        return None, "no cache: the scheme freezes nothing at the start of the network"
    if needed > options.limit_bytes:
        return None, f"no cache: it would take {needed:,} bytes, the limit is {options.limit_bytes:,}"
    return PrefixCache(host, function, samples, options), "cache"
