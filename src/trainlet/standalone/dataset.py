"""Samples and labels as one file that a standalone program reads (the format is at the top of main.c)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from trainlet.data import Dataset
from trainlet.errors import DataError
from trainlet.output import whole_files

MAGIC = b"TLDATA1\n"
BLOCK = 256  # samples that are in memory at once


def write_dataset(data: Dataset, path: Path) -> Path:
    """Write both parts of a data set to `path`, as the network's inputs. Raises OutputError."""
    x, y = data.x_train, data.y_train
    if x.dtype not in (np.dtype(np.float32), np.dtype(np.int8)):
        raise DataError(f"samples are {x.dtype}: a standalone program reads float32 or int8")
    sample = int(np.prod(x.shape[1:]))
    label = int(np.prod(y.shape[1:]))
    kinds = (int(x.dtype == np.int8), sample, int(y.dtype.kind == "f"), label)
    with whole_files(path) as folder, (folder / path.name).open("wb") as file:
        file.write(MAGIC + struct.pack("<IIIIQQ", *kinds, len(x), len(data.x_test)))
        for part in (data.x_train, data.x_test):
            for i in range(0, len(part), BLOCK):
                file.write(part[i : i + BLOCK].tobytes())
        for labels in (data.y_train, data.y_test):
            file.write(np.ascontiguousarray(labels).tobytes())
    return path
