"""The firmware's own memcpy, memmove and memset, compiled for this machine under other names."""

import ctypes
import subprocess

import numpy as np
import pytest

from trainlet.device.firmware import FOLDER
from trainlet.runtime.toolchain import compiler

SIZES = (0, 1, 3, 4, 15, 16, 17, 64, 101)
OFFSETS = (0, 1, 4, 7, 8, 20)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "memory.so"
    names = [f"-D{name}=own_{name}" for name in ("memcpy", "memmove", "memset")]
    source = str(FOLDER / "memory.c")
    command = [*compiler(), "-std=gnu99", "-O3", "-fno-builtin", *names, "-fPIC", "-shared", source]
    subprocess.run([*command, "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("function", ["own_memcpy", "own_memmove"])
def test_copies_equal_pythons_whatever_overlaps(function, library):
    for size in SIZES:
        for to in OFFSETS:
            for start in OFFSETS:
                if function == "own_memcpy" and start < to < start + size:
                    continue
                buffer = np.arange(160, dtype=np.uint8)
                expected = buffer.copy()
                expected[to : to + size] = buffer[start : start + size].copy()
                base = buffer.ctypes.data
                pointers = ctypes.c_void_p(base + to), ctypes.c_void_p(base + start)
                getattr(library, function)(*pointers, ctypes.c_size_t(size))
                assert np.array_equal(buffer, expected), (size, to, start)


def test_fills_equal_pythons(library):
    for size in SIZES:
        for to in OFFSETS:
            buffer = np.arange(160, dtype=np.uint8)
            expected = buffer.copy()
            expected[to : to + size] = 0xA7
            library.own_memset(ctypes.c_void_p(buffer.ctypes.data + to), 0x3A7, ctypes.c_size_t(size))
            assert np.array_equal(buffer, expected), (size, to)
