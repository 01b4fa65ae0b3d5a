"""Speed of the CPU backend's products beside OpenBLAS: `python -m benchmarks.cpu_kernels`.

Times are the least processor time of the calling thread, so that other load disturbs little. OpenBLAS (PyPI
scipy-openblas32) is left out loudly where it is not installed. benchmarks/cpu_profile.py says where the time
of a training step goes.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import trainlet
from benchmarks.tables import markdown
from trainlet.backends.cpu import native_isa
from trainlet.backends.cpu.sources import kernel_files
from trainlet.backends.cpu.target import ISAS
from trainlet.backends.cpu.weights import panels
from trainlet.runtime.toolchain import build_flags, build_shared

# (rows, depth, columns): patches of ResNet-18, points of its Winograd tiles, 1x1 layers of the MobileNets.
PRODUCTS = (
    (480, 576, 64), (240, 1152, 128), (120, 2304, 256), (24, 64, 64), (48, 256, 256), (48, 512, 512),
    (392, 512, 512), (4096, 8, 48), (1024, 96, 16), (256, 144, 24), (6272, 32, 192), (1568, 96, 576),
    (1568, 576, 96),
)  # fmt: skip
SECONDS = 0.3  # for each product


class _Finish(ctypes.Structure):
    _fields_ = [("bias", ctypes.c_void_p), ("add", ctypes.c_void_p), ("lo", ctypes.c_float),
                ("hi", ctypes.c_float), ("mask", ctypes.c_void_p), ("keep", ctypes.c_void_p)]  # fmt: skip


class _Gemm(ctypes.Structure):
    """tl_gemm of tl_gemm.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in "abc"),
        *(
            (name, ctypes.c_int32)
            for name in ("m", "k", "n", "a_row", "a_depth", "ldb", "ldc", "depth", "onto")
        ),
        ("finish", _Finish),
        ("update", ctypes.c_void_p),
    ]


def _least_seconds(run: Callable[[], object]) -> float:
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
    return best


def _own_library(folder: Path) -> ctypes.CDLL:
    (folder / "kernels").mkdir()
    for source in kernel_files(Path(trainlet.__file__).parent / "kernels", "tl_gemm_rows"):
        shutil.copyfile(source, folder / "kernels" / source.name)
    return ctypes.CDLL(str(build_shared(folder, build_flags({"isa": native_isa()}), native=False)))


def _openblas() -> ctypes.CDLL | None:
    try:
        import scipy_openblas32
    except ImportError:
        print("OpenBLAS is NOT installed: the comparison is left out (pip install scipy-openblas32)")
        return None
    library = ctypes.CDLL(
        next(str(p) for p in Path(scipy_openblas32.get_lib_dir()).glob("libscipy_openblas*"))
    )
    library.scipy_openblas_set_num_threads(1)
    return library


def products() -> str:
    """Own kernel and OpenBLAS on one thread, weights as [out][in] (its best case), GFLOP/s."""
    blas, rows = _openblas(), []
    with tempfile.TemporaryDirectory() as folder:
        own = _own_library(Path(folder))
        for m, k, n in PRODUCTS:
            rng = np.random.default_rng(0)
            a, w = (rng.normal(0, 1, s).astype(np.float32) for s in ((m, k), (n, k)))
            packed, c = panels(w.T, ISAS[native_isa()].lanes), np.zeros((m, n), np.float32)
            at = [x.ctypes.data for x in (a, packed, c)]
            finish = _Finish(None, None, -np.inf, np.inf, None, None)
            g = ctypes.byref(_Gemm(*at, m, k, n, k, 1, 0, n, 0, 0, finish, None))
            flops = 2e-9 * m * k * n
            speeds = [flops / _least_seconds(lambda g=g: own.tl_gemm_rows(g, 0, 1))]
            if blas is not None:
                pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, w, c)]
                one, zero = ctypes.c_float(1), ctypes.c_float(0)
                arguments = (
                    101,
                    111,
                    112,
                    m,
                    n,
                    k,
                    one,
                    pointers[0],
                    k,
                    pointers[1],
                    k,
                    zero,
                    pointers[2],
                    n,
                )
                speeds.append(flops / _least_seconds(lambda x=arguments: blas.scipy_cblas_sgemm(*x)))
            rows.append([f"{m} x {k} x {n}", *(f"{s:.0f}" for s in speeds)])
    return markdown(["rows x depth x columns", "own", *(["OpenBLAS"] if blas else [])], rows)


if __name__ == "__main__":
    print(f"# Products, one thread, {native_isa()}, GFLOP/s\n\n{products()}")
