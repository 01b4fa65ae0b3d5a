"""What is measured about CPU programs beside the time of a step. One table each:

python -m benchmarks.cpu_checks gradients [WORKLOAD …]    # of every trained tensor, against float64 PyTorch
python -m benchmarks.cpu_checks prefix                    # epochs of W1's sparse scheme with the cache
python -m benchmarks.cpu_checks standalone                # W1 without Python: memory, start-up, size
python -m benchmarks.cpu_checks memory                    # what a budget makes of a batch of W1
python -m benchmarks.cpu_checks compile [WORKLOAD …]      # seconds until a program is loaded, cold and cached
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import markdown
from benchmarks.torch_models import WORKLOADS

HUGE = 2.0**80  # a rate at which the weight itself is lost in the step, however small its gradient is


def gradients(names: list[str]) -> str:
    """Worst relative difference over all trained tensors: of the largest element of each."""
    rows = []
    for name in names or list(WORKLOADS):
        for batch in (1, 2):
            rows.append([name, batch, *_gradients(name, batch)])
    return markdown(["workload", "batch", "trained tensors", "worst difference", "in", "biases moved"], rows)


def _gradients(name: str, batch: int) -> tuple[int, str, str, str]:
    """The network is settled first (torch_settled.py): moved where its gradient would hang on rounding."""
    import torch

    from benchmarks.torch_folded import folded_module
    from benchmarks.torch_settled import settle
    from trainlet import compile as compile_model

    w = WORKLOADS[name]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batch, *w.input_shape)).astype(np.float32)
    y = rng.integers(0, w.classes, batch)
    module, _ = folded_module(name)
    module = module.double()
    moved = settle(module, torch.from_numpy(x).double())
    module = module.float().requires_grad_(True)
    program = compile_model(module, w.example(batch), scheme="full")
    before = {p.name: program.host.tensor(p.tensors["w"].value.name).copy() for p in program.parameters}
    program.step(x, y, HUGE)
    module = module.double()
    out = module(torch.from_numpy(x).double())
    torch.nn.functional.cross_entropy(getattr(out, "logits", out), torch.from_numpy(y)).backward()
    expected = {k: p.grad.numpy() for k, p in module.named_parameters()}
    worst, where = 0.0, ""
    for p in program.parameters:
        after = program.host.tensor(p.tensors["w"].value.name)
        ours = (before[p.name].astype(np.float64) - after) / HUGE
        theirs = expected[p.name]
        theirs = (np.moveaxis(theirs, 1, -1) if theirs.ndim > 2 else theirs).reshape(ours.shape)
        difference = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
        if difference > worst:
            worst, where = difference, p.name
    count = sum(len(p) for n, p in module.named_parameters() if n.endswith("bias"))
    return len(program.parameters), f"{worst:.1e}", where, f"{moved} of {count}"


def prefix(_: list[str]) -> str:
    """Epochs of 256 samples, batch 8, one thread: the first computes the prefix, later ones start after."""
    from trainlet import CacheOptions
    from trainlet import compile as compile_model

    w = WORKLOADS["w1"]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, *w.input_shape)).astype(np.float32)
    y = rng.integers(0, w.classes, 256)
    rows = []
    reference: list[float] = []
    for precision in ("none", "fp32", "fp16", "int8"):
        program = compile_model(w.module(0), w.example(8), scheme=w.sparse)
        program.fit((x[:8], y[:8]), epochs=2, cache=None)  # warm
        program.reset()
        options = None if precision == "none" else CacheOptions(precision=precision)
        result = program.fit((x, y), epochs=5, lr=0.005, cache=options)
        reference = reference or result.loss
        worst = max(abs(a - b) / abs(b) for a, b in zip(result.loss, reference, strict=True))
        same = "the same bits" if result.loss == reference else f"{worst:.1e} off"
        later = float(np.median(result.seconds[1:]))
        ms = [1e3 * s / 32 for s in (result.seconds[0], later)]
        rows.append([precision, f"{ms[0]:.2f}", f"{ms[1]:.2f}", f"{ms[0] / ms[1]:.1f}", same, result.cache])
    return markdown(
        ["cache", "first epoch, ms a step", "later ones", "ratio", "losses", "what it says"], rows
    )


def standalone(_: list[str]) -> str:
    """W1, batch 1, as a program of its own."""
    from benchmarks.cpu import network
    from trainlet.api import Settings
    from trainlet.data import Dataset, InputTransform, Samples
    from trainlet.standalone import compile_standalone, write_dataset

    graph, rng, rows = network("w1"), np.random.default_rng(0), []
    stored = rng.normal(size=(64, *graph.inputs[0].shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, 64).astype(np.int32)
    x = Samples(stored, InputTransform.of(graph.inputs[0]))
    with tempfile.TemporaryDirectory(prefix="trainlet-bench-") as place:
        data = write_dataset(Dataset(x, y, x, y, (), ""), Path(place) / "data.bin")
        for scheme in ("full", WORKLOADS["w1"].sparse(graph), "head"):
            label = scheme if isinstance(scheme, str) else scheme.name
            started = time.perf_counter()
            program, _ = compile_standalone(graph, Settings(scheme), Path(place) / label)
            built = time.perf_counter() - started
            starts = []
            for _ in range(9):
                started = time.perf_counter()
                subprocess.run([program, "info"], check=True, capture_output=True)
                starts.append(1e3 * (time.perf_counter() - started))
            said = subprocess.run(
                [program, "train", data, "--epochs", "3"], check=True, capture_output=True, text=True
            ).stdout.splitlines()
            step, memory = said[-2].split(", ")[-1], int(said[-1].split()[-2]) * 1024
            size = program.stat().st_size
            rows.append(
                [
                    label,
                    f"{memory / 1e6:.1f}",
                    f"{np.median(starts):.1f}",
                    step,
                    f"{size / 1e6:.1f}",
                    f"{built:.1f}",
                ]
            )
    heads = ["scheme", "peak resident MB", "start-up ms", "step", "executable MB", "plan and compile s"]
    return markdown(heads, rows)


def compile_times(names: list[str]) -> str:
    """From a module to a loaded program, full, batch 8: with an empty cache, and again in a new process.

    Seconds on the clock, and in brackets those of processors, which a busy machine stretches less.
    """
    rows: list[list[Any]] = []
    for name in names or ("w1", "w2"):
        with tempfile.TemporaryDirectory(prefix="trainlet-bench-") as cache:
            found = [_compile_once(name, cache) for _ in range(2)]
        rows.append([name, *(f"{wall:.1f} ({processor:.1f})" for wall, processor in found)])
    return markdown(["workload", "empty cache s (processor)", "cached s (processor)"], rows)


def _compile_once(name: str, cache: str) -> tuple[float, float]:
    """Seconds on the clock, and of processors with the C compiler's, in a process of its own."""
    code = (
        "import resource as r, time, torch, trainlet\nfrom benchmarks.torch_models import WORKLOADS\n"
        "def used(): return sum(sum(r.getrusage(w)[:2]) for w in (r.RUSAGE_SELF, r.RUSAGE_CHILDREN))\n"
        f"w = WORKLOADS[{name!r}]\nm = w.module(0)\nt, u = time.perf_counter(), used()\n"
        "trainlet.compile(m, w.example(8))\nprint(time.perf_counter() - t, used() - u)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRAINLET_CACHE": cache}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    wall, processor = map(float, said.stdout.split())
    return wall, processor


def memory(_: list[str]) -> str:
    """W1, batch 8, in ever less memory: what the planner chooses."""
    from benchmarks.cpu import network
    from trainlet.api import Settings
    from trainlet.compiled.compile import plan_for
    from trainlet.plan.budget import fit_budget

    graph, rows = network("w1"), []
    for scheme in ("full", WORKLOADS["w1"].sparse(graph)):
        settings = Settings(scheme, batch=8)
        whole = plan_for(graph, settings, "cpu").ram_bytes
        for share in (1.0, 0.75, 0.5, 0.25):
            tight = replace(settings, budget_bytes=int(share * whole))
            _, choice = fit_budget(tight, lambda s: plan_for(graph, s, "cpu"))
            more = f"{choice.recomputed_macs / choice.macs:.1%}"
            name = scheme if isinstance(scheme, str) else scheme.name
            calls = f"{choice.calls} x {choice.micro_batch}"
            rows.append([name, f"{share:.0%}", f"{choice.ram_bytes:,}", calls, len(choice.recomputed), more])
    return markdown(["scheme", "budget", "RAM, bytes", "calls", "computed twice", "more work"], rows)


CHECKS = {
    "memory": memory,
    "gradients": gradients,
    "prefix": prefix,
    "standalone": standalone,
    "compile": compile_times,
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: python -m benchmarks.cpu_checks {'|'.join(CHECKS)} [WORKLOAD …]")
    check = CHECKS[sys.argv[1]]
    doc = (check.__doc__ or "").split("\n")[0]
    print(f"{doc}\n\n{check(sys.argv[2:])}")


if __name__ == "__main__":
    main()
