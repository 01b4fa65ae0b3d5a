"""Constants of a CPU program: one file of bytes, each tensor in the layouts that its kernels read.

Panels are those of tl_gemm.h: columns in groups of one to three registers, each group [k][width], then zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from trainlet.backends.c99.writer import C_TYPES
from trainlet.backends.cpu.target import ALIGNMENT
from trainlet.ir import Tensor


def panel_vectors(left: int) -> int:
    """tl_panel_vectors of tl_gemm.h."""
    return 2 if left == 4 else left if left < 3 else 3


def padded(n: int, lanes: int) -> int:
    """n rounded up to whole registers."""
    return -(-n // lanes) * lanes


def panels(b: np.ndarray, lanes: int) -> np.ndarray:
    """b f32 (k, n) as panels: k * n rounded up to whole registers."""
    k, n = b.shape
    full = np.zeros((k, padded(n, lanes)), np.float32)
    full[:, :n] = b
    parts, col = [], 0
    while col < full.shape[1]:
        width = lanes * panel_vectors((full.shape[1] - col) // lanes)
        parts.append(full[:, col : col + width].reshape(-1))
        col += width
    return np.concatenate(parts)


def taps(w: np.ndarray, lanes: int, turn: bool) -> np.ndarray:
    """Depthwise weights (c, kh, kw, 1) as (taps, c rounded up), turned around for an input gradient."""
    flat = w.reshape(w.shape[0], -1).T
    full = np.zeros((flat.shape[0], padded(flat.shape[1], lanes)), np.float32)
    full[:, : flat.shape[1]] = flat[::-1] if turn else flat
    return full


class Blob(Mapping[str, str]):
    """The file of constants while it is being filled. blob[name] is the C expression of a tensor as it is.

    Layouts are made when they are asked for and again when they are written, not kept: together they are
    several times as large as the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self._at: dict[tuple[str, str], int] = {}
        self._changes: list[Callable[[np.ndarray], np.ndarray]] = []
        self.bytes = 0

    def __getitem__(self, name: str) -> str:
        tensor = self.tensors[name]
        return self.put(name, "", lambda data: data, C_TYPES[tensor.value.dtype])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def put(
        self, name: str, layout: str, change: Callable[[np.ndarray], np.ndarray], c_type: str = "float"
    ) -> str:
        """C expression of change(tensor `name`), stored once under (name, layout)."""
        key = (name, layout)
        if key not in self._at:
            self._at[key] = self.bytes
            self._changes.append(change)
            self.bytes += padded(change(self.tensors[name].data).nbytes, ALIGNMENT)
        return f"WEIGHTS({c_type}, {self._at[key]})"

    def write(self, to: BinaryIO) -> None:
        """The file: tensors at multiples of 64 bytes, and a register behind the last that may be read."""
        for (name, _), change in zip(self._at, self._changes, strict=True):
            data = np.ascontiguousarray(change(self.tensors[name].data))
            to.write(data.data)
            to.write(bytes(padded(data.nbytes, ALIGNMENT) - data.nbytes))
        to.write(bytes(ALIGNMENT))
