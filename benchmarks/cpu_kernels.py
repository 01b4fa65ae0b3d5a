"""Speed of the CPU backend's kernels: products beside OpenBLAS, and where the time of a training step goes.

    python -m benchmarks.cpu_kernels [--workload w1] [--batch 1] [--scheme full] [--threads 1] [--rounds 50]

Times are the least processor time of the calling thread, so that other load disturbs little; with more than
one thread a step's time includes the wait for the others. OpenBLAS (PyPI scipy-openblas32) is left out loudly
where it is not installed. GFLOP/s of Winograd's convolutions count the products of the direct sum.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import trainlet
from benchmarks.tables import markdown
from trainlet.backends.cpu import native_isa, plan_program, write_program
from trainlet.backends.cpu.sources import kernel_files
from trainlet.backends.cpu.target import ISAS
from trainlet.backends.cpu.weights import panels
from trainlet.ir import Node
from trainlet.ir.ops import OPS
from trainlet.plan.program import Program
from trainlet.runtime.profile import Profile, first_step
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


def step_times(program: Program, threads: int, rounds: int) -> list[tuple[Node, float]]:
    """Least microseconds of every step of the training function."""
    with tempfile.TemporaryDirectory() as name:
        write_program(program, Path(name), threads)
        profile = Profile(program, Path(name))
    profile.run(rounds)
    least, first = profile.least_us(), first_step(program)
    return [(node, float(least[first + i])) for i, node in enumerate(program.main.graph.nodes)]


def _kind(node: Node) -> str:
    """Op, and the window of a convolution."""
    if not node.op.startswith("Conv"):
        return node.op
    if "kernel" in node.attrs:
        size, depthwise = tuple(node.attrs["kernel"]), bool(node.attrs["depthwise"])
    else:
        shape = node.inputs[1].shape  # type: ignore[union-attr]
        size, depthwise = shape[1:-1], shape[-1] == 1 and node.attrs["groups"] > 1
    return f"{node.op} {'depthwise ' * depthwise}{'x'.join(map(str, size))}"


def steps(times: list[tuple[Node, float]]) -> str:
    """Time by kind of step, largest first; a fused step stands where it began."""
    total, kinds = sum(us for _, us in times), {}
    for node, us in times:
        count, spent, macs = kinds.get(_kind(node), (0, 0.0, 0))
        kinds[_kind(node)] = (count + (us > 0), spent + us, macs + OPS[node.op].macs(node))
    rows = [
        [kind, count, f"{us:.0f}", f"{100 * us / total:.1f}", f"{2e-3 * macs / us:.1f}" if macs else ""]
        for kind, (count, us, macs) in sorted(kinds.items(), key=lambda item: -item[1][1])
        if us > 0
    ]
    rows.append(["all", sum(us > 0 for _, us in times), f"{total:.0f}", "100", ""])
    return markdown(["step", "count", "us", "%", "GFLOP/s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_kernels")
    parser.add_argument("--workload", default="w1", help="w1, w2 or resnet50; none: products alone")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--scheme", default="full", choices=("full", "sparse"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    print(f"# Products, one thread, {native_isa()}, GFLOP/s\n\n{products()}\n", flush=True)
    if args.workload == "none":
        return
    from benchmarks.torch_models import WORKLOADS
    from trainlet.api import Settings, derive
    from trainlet.frontends.torch import from_module

    workload = WORKLOADS[args.workload]
    graph = from_module(workload.module(0), workload.example())
    scheme = "full" if args.scheme == "full" else workload.sparse(graph)
    program = plan_program(derive(graph, Settings(batch=args.batch, scheme=scheme)), args.threads)
    print(f"# Steps of {args.workload}, batch {args.batch}, {args.scheme}, {args.threads} threads\n")
    print(steps(step_times(program, args.threads, args.rounds)))


if __name__ == "__main__":
    main()
