"""The kernels of the CPU backend in a shared library, called through ctypes with padded arrays."""

from __future__ import annotations

import ctypes
import shutil
from ctypes import POINTER, c_float, c_int32, c_void_p
from pathlib import Path

import numpy as np

import trainlet
from trainlet.backends.cpu.sources import kernel_files
from trainlet.ir.ops.window import Window
from trainlet.runtime.toolchain import build_flags, build_shared

FOLDER = Path(trainlet.__file__).parent / "kernels"
CALLED = (
    "tl_gemm_rows tl_gemm_columns tl_pack_panels tl_dense_rows tl_dense_grad_rows tl_dense_weights_part "
    "tl_pack_grad_panels tl_depthwise_rows tl_depthwise_grad_rows tl_depthwise_weights_part tl_pack_taps "
    "tl_winograd_part tl_winograd_pack_part tl_maxpool_rows tl_maxpool_grad_channels tl_bias_sums_part "
    "tl_lines_rows tl_lines_weights_part tl_each_part tl_mean_part tl_mean_grad_part tl_parallel "
    "tl_chunks_part tl_chunks_turned_part"
)
PARTS = (1, 2, 3)
SLACK = 64  # floats behind an array that kernels may read
Part = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_int32)


class Shape(ctypes.Structure):
    _fields_ = [(n, c_int32) for n in "n h w c oh ow o kh kw sh sw pt pl dh dw groups".split()]


def shape(s: Window) -> Shape:
    return Shape(*(getattr(s, name) for name, _ in Shape._fields_))


class Finish(ctypes.Structure):
    _fields_ = [("bias", c_void_p), ("add", c_void_p), ("lo", c_float), ("hi", c_float), ("mask", c_void_p),
                ("keep", c_void_p)]  # fmt: skip


class Update(ctypes.Structure):
    """tl_update that stores the gradient."""

    _fields_ = [("rule", c_int32), ("master", c_int32), ("stored", c_int32), ("w", c_void_p),
                ("fraction", c_void_p), ("m", c_void_p), ("v", c_void_p), ("row_len", c_int32),
                ("row_scale", c_void_p), ("floats", c_float * 8), ("seed", ctypes.c_uint32 * 3)]  # fmt: skip


def struct(name: str, **fields: type) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


P, N = c_void_p, c_int32
Gemm = struct("Gemm", a=P, b=P, c=P, m=N, k=N, n=N, a_row=N, a_depth=N, ldb=N, ldc=N, depth=N, onto=N,
              finish=Finish, update=POINTER(Update))  # fmt: skip
Pack = struct("Pack", w=P, panels=P, k=N, n=N, ldw=N, turn=N)
Dense = struct("Dense", s=Shape, x=P, panels=P, y=P, finish=Finish, tiles=P)
PackGrad = struct("PackGrad", w=P, panels=P, o=N, taps=N, c=N, used=N, list=P)
DenseWeights = struct("DenseWeights", s=Shape, x=P, dy=P, sums=P, tiles=P, u=POINTER(Update))
Depthwise = struct("Depthwise", s=Shape, x=P, taps=P, y=P, finish=Finish)
DepthwiseWeights = struct("DepthwiseWeights", s=Shape, x=P, dy=P, sums=P)
Taps = struct("Taps", w=P, taps=P, c=N, count=N, turn=N)
WinogradPack = struct("WinogradPack", w=P, panels=P, o=N, c=N, gradient=N)
Maxpool = struct("Maxpool", s=Shape, x=P, y=P, dy=P, dx=P)
Lines = struct("Lines", s=Shape, x=P, panels=P, y=P, finish=Finish, lines=P)
LinesWeights = struct("LinesWeights", s=Shape, x=P, dy=P, sums=P, lines=P)
BiasSums = struct("BiasSums", dy=P, positions=N, channels=N, sums=P)
Chunks = struct("Chunks", sums=P, turned=P, rows=N, columns=N, pitch=N, u=POINTER(Update))


def library(folder: Path, isa: str) -> ctypes.CDLL:
    """All kernels, built for `isa`; objects are those that programs share."""
    (folder / "kernels").mkdir(parents=True)
    for source in kernel_files(FOLDER, CALLED):
        shutil.copyfile(source, folder / "kernels" / source.name)
    return ctypes.CDLL(str(build_shared(folder, build_flags({"isa": isa}), native=False)))


def floats(values: np.ndarray) -> np.ndarray:
    """A copy with slack of NaN behind it: reading there is allowed, using it is not."""
    flat = np.full(values.size + SLACK, np.nan, np.float32)
    flat[: values.size] = values.reshape(-1)
    return flat[: values.size].reshape(values.shape)


def room(count: int) -> np.ndarray:
    """Scratch full of NaN."""
    return np.full(count + SLACK, np.nan, np.float32)


def at(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


class Ending:
    """A random ending of a kernel, and what it makes of sums."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> None:
        size = int(np.prod(shape))
        self.bias = floats(rng.normal(0, 1, shape[-1])) if kind in ("mask", "add") else None
        self.add = floats(rng.normal(0, 1, shape)) if kind in ("add", "keep") else None
        self.lo, self.hi = (-0.5, 0.75) if kind in ("mask", "add") else (-np.inf, np.inf)
        self.mask = np.full((size + 7) // 8 + 8, 0xAA, np.uint8) if kind in ("mask", "add") else None
        keeps = kind in ("keep", "only keep")
        self.kept = rng.random(shape) < 0.5 if keeps else np.ones(shape, bool)
        packed = np.packbits(self.kept.reshape(-1), bitorder="little")
        self.keep = packed if keeps else None

    def c(self) -> Finish:
        return Finish(at(self.bias), at(self.add), self.lo, self.hi, at(self.mask), at(self.keep))

    def of(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(result, mask) in float64."""
        v = sums + (0 if self.bias is None else self.bias) + (0 if self.add is None else self.add)
        return np.where(self.kept, np.clip(v, self.lo, self.hi), 0), (v > self.lo) & (v < self.hi)

    def check(self, result: np.ndarray, sums: np.ndarray, tolerance: float = 2e-6) -> None:
        """Values within `tolerance` of the largest sum; masks equal but where a value lies on a bound."""
        expected, inside = self.of(sums)
        scale = np.abs(sums).max() + 1
        assert np.abs(result - expected).max() <= tolerance * scale
        if self.mask is not None:
            bits = np.unpackbits(self.mask, bitorder="little")[: result.size].reshape(result.shape)
            v = sums + self.bias + (0 if self.add is None else self.add)
            sure = np.minimum(np.abs(v - self.lo), np.abs(v - self.hi)) > tolerance * scale
            assert (bits == inside)[sure].all()


ENDINGS = ("plain", "mask", "add", "keep", "only keep")


def run(library: ctypes.CDLL, name: str, argument: ctypes.Structure, result: np.ndarray, parts=PARTS):
    """The result, which must be the same bits for every number of parts, in whatever order they run."""
    return run_all(library, ((name, argument),), result, parts)


def run_all(library: ctypes.CDLL, calls, result: np.ndarray, parts=PARTS):
    """The same of several kernels, (name, argument) each, one after another."""
    seen = None
    for count in parts:
        result[...] = np.nan
        for name, argument in calls:
            for part in reversed(range(count)):
                getattr(library, name)(ctypes.byref(argument), c_int32(part), c_int32(count))
        assert seen is None or np.array_equal(seen, result, equal_nan=True), (
            f"{calls[0][0]} depends on the number of parts"
        )
        seen = result.copy()
    return seen


def stored(rows: int, columns: int) -> tuple[np.ndarray, Update]:
    """A gradient tensor, and the update that stores into it."""
    w = floats(np.zeros((rows, columns)))
    return w, Update(rule=0, w=at(w), row_len=columns)
