"""Builds the kernels into shared libraries and calls them.

Every call runs in all libraries (optimised, unoptimised, narrow lanes, clang if the ziglang package is
there) on the same inputs and must give the same bits: each test of a value is also a test that neither the
compiler, the optimiser nor the lane width changes a result.
With TL_SANITIZE set there is one library, built with the address and undefined-behaviour sanitizers.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

KERNELS = Path(__file__).parents[2] / "src" / "trainlet" / "kernels"
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-ffp-contract=off"]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BUILDS = {
    "O3": ["-O3", "-march=native"],
    "O0": ["-O0"],
    "narrow": ["-O2", "-DTL_LANES=4"],
    "clang": ["-O2", "-march=native"],
}
FUSED = {
    "O3-fused": ["-O3", "-march=native", "-DTL_USE_FMA=1"],
    "O1-fused": ["-O1", "-mfma", "-DTL_USE_FMA=1", "-DTL_LANES=4"],
}
SANITIZED = {
    "sanitized": SANITIZERS,
    "sanitized-narrow": [*SANITIZERS, "-DTL_LANES=4"],
}


def build(folder: Path, name: str, flags: list[str]) -> ctypes.CDLL:
    compiler = [sys.executable, "-m", "ziglang", "cc"] if name == "clang" else ["cc"]
    library = folder / f"lib{name}.so"
    sources = sorted(map(str, (KERNELS / "portable").glob("*.c")))
    output = ["-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*compiler, *WARNINGS, *flags, f"-I{KERNELS / 'include'}", *sources, *output], check=True)
    return ctypes.CDLL(str(library))


def build_all(folder: Path, builds: dict[str, list[str]]) -> dict[str, ctypes.CDLL]:
    has_clang = importlib.util.find_spec("ziglang") is not None
    return {
        name: build(folder, name, flags) for name, flags in builds.items() if name != "clang" or has_clang
    }


def argument(value):
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    if isinstance(value, (float, np.floating)):
        return ctypes.c_float(value)
    if isinstance(value, (int, np.integer)):
        return ctypes.c_int32(value)
    return value


class Kernels:
    """call(name, *arguments, out=[...]): arrays go as pointers, `out` are those written, also in structs."""

    def __init__(self, libraries: dict[str, ctypes.CDLL]):
        self.libraries = libraries

    def call(self, name: str, *arguments, out) -> None:
        before = [array.copy() for array in out]
        results = {}
        for build_name, library in self.libraries.items():
            for array, old in zip(out, before):
                array[...] = old
            function = getattr(library, name)
            function.restype = None
            function(*map(argument, arguments))
            results[build_name] = [array.tobytes() for array in out]
        first, *others = results
        for other in others:
            assert results[first] == results[other], f"{name}: {first} and {other} differ"


@pytest.fixture(scope="session")
def kernels(tmp_path_factory) -> Kernels:
    folder = tmp_path_factory.mktemp("kernels")
    builds = SANITIZED if os.environ.get("TL_SANITIZE") else BUILDS
    return Kernels(build_all(folder, builds))


@pytest.fixture(scope="session")
def fused_kernels(tmp_path_factory) -> Kernels:
    if os.environ.get("TL_SANITIZE") or " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a processor with fused multiply-add, no sanitizer")
    folder = tmp_path_factory.mktemp("fused")
    return Kernels(build_all(folder, FUSED))
