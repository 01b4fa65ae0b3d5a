"""A data set in memory: kept as it was stored, made into network inputs batch by batch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.data.augment import Augment
from trainlet.data.resize import resize
from trainlet.data.transform import InputTransform


class Samples:
    """Samples of a network, indexed like an array of its inputs (M, *sample shape).

    `stored` (M, *sample shape), in any number type, stays as it is; uint8 images of another height or
    width are resized when a batch first asks for them, and the uint8 result is kept.
    """

    def __init__(
        self,
        stored: np.ndarray,
        transform: InputTransform,
        image_size: tuple[int, int] | None = None,
        resize_to: tuple[int, int] | None = None,
    ) -> None:
        """`image_size`: the network's (H, W) where images are to be resized, else None. `resize_to`: resize
        to this (H, W) and cut image_size out of the middle."""
        self.stored, self.transform = stored, transform
        self.image_size, self.resize_to = image_size, resize_to or image_size
        self._resized: np.ndarray | None = None
        self._known = np.zeros(len(stored), bool)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shape(self) -> tuple[int, ...]:
        size = self.image_size or ()
        return (len(self.stored), *size, *self.stored.shape[1 + len(size) :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.transform.dtype == "s8" else np.float32)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Network inputs: (*sample shape) for an int, else (N, *sample shape)."""
        rows = np.arange(len(self))[index]
        batch = self.batch(np.atleast_1d(rows))
        return batch if np.ndim(rows) else batch[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        everything = self[:]
        return everything if dtype is None else everything.astype(dtype)

    def batch(self, indices: np.ndarray, augment: Augment | None = None, epoch: int = 0) -> np.ndarray:
        """Network inputs (N, *sample shape) of the samples at `indices`, augmented where asked to."""
        raw, indices = self.raw(indices), np.asarray(indices)
        return self.transform(raw if augment is None else augment(raw, indices, epoch))

    def raw(self, indices: np.ndarray) -> np.ndarray:
        """Samples (N, *sample shape) as stored, images in the network's size."""
        indices = np.asarray(indices)
        if self.image_size is None or self.resize_to is None:
            return self.stored[indices]
        if self._resized is None:
            self._resized = np.empty(self.shape, np.uint8)
        for i in np.unique(indices[~self._known[indices]]):
            self._resized[i] = resize(self.stored[i], self.image_size, self.resize_to)
            self._known[i] = True
        return self._resized[indices]


@dataclass(frozen=True)
class Dataset:
    """Training and test samples with their labels.

    y: int32 class numbers (M), or float32 targets (M, …) of a regression. `split` says in words how
    the test samples were chosen.
    """

    x_train: Samples
    y_train: np.ndarray
    x_test: Samples
    y_test: np.ndarray
    class_names: tuple[str, ...]
    split: str

    def digest(self) -> int:
        """CRC-32 of the training part as stored: tells one data set from another when a run is resumed."""
        state = zlib.crc32(np.ascontiguousarray(self.x_train.stored).data)
        return zlib.crc32(np.ascontiguousarray(self.y_train).data, state)
