"""One training step on this processor: ours beside PyTorch, torch.compile, JAX, TensorFlow, ONNX Runtime.

    python -m benchmarks.cpu                                      # W1 and W2
    python -m benchmarks.cpu --workloads resnet50 --batches 8 --threads 2
    python -m benchmarks.cpu --env tensorflow=envs/tf/bin/python --env onnxruntime=envs/ort/bin/python

Every contender runs in a process of its own, in the interpreter that --env names for it (this one if none),
pinned to as many processors as it has threads. Before anything is timed, the losses of 20 steps from the
same weights on the same batches are compared with PyTorch's: who differs is not in the table. Then all take
a few steps in turn, for several rounds, so that what else the machine does hits all; the table has the median
of all steps, the quartiles, and the fastest step, which a busy machine hides least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import ROOT, markdown
from benchmarks.torch_models import WORKLOADS
from trainlet.ir import Graph
from trainlet.scheme import UpdateScheme

CHECKED, LR, BATCHES = 20, 0.01, 4
TOLERANCE = 1e-2  # of the losses over the checked steps, relative
RIVALS = ("torch", "torch channels_last", "torch.compile", "jax", "tensorflow", "onnxruntime")
SCHEMES = ("full", "sparse", "head")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workloads", type=_words, default=["w1", "w2"], help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--schemes", type=_words, default=list(SCHEMES))
    parser.add_argument("--batches", type=_words, default=["1", "8"])
    parser.add_argument("--threads", type=_words, default=["1", "2"])
    parser.add_argument("--rivals", type=_words, default=["torch", "torch channels_last", "jax"])
    parser.add_argument("--env", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--seconds", type=float, default=4.0, help="timed, of each contender, about")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "cpu.json")
    args = parser.parse_args()
    pythons = dict(e.split("=", 1) for e in args.env)
    results: list[dict[str, Any]] = []
    for workload in args.workloads:
        graph = network(workload)
        for batch in map(int, args.batches):
            rows = []
            for threads in map(int, args.threads):
                for scheme in args.schemes:
                    found = compare(
                        graph, workload, scheme, batch, threads, args.rivals, pythons, args.seconds
                    )
                    print("\n".join(json.dumps(row) for row in found), file=sys.stderr, flush=True)
                    rows += found
            results += rows
            print(f"\n## {workload}, batch {batch}\n\n{table(rows)}\n", flush=True)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": machine(), "rows": results}, indent=1))
    print(f"machine: {json.dumps(machine())}\nnumbers: {args.json}")


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]


def network(workload: str) -> Graph:
    from trainlet.frontends.torch import from_module

    w = WORKLOADS[workload]
    return from_module(w.module(0), w.example())


def compare(
    graph: Graph,
    workload: str,
    scheme: str,
    batch: int,
    threads: int,
    rivals: Sequence[str],
    pythons: Mapping[str, str],
    seconds: float,
) -> list[dict[str, Any]]:
    """A row for each contender on one configuration; those that cannot run say so on stderr."""
    from trainlet.scheme import select

    chosen = _scheme(graph, workload, scheme)
    selection = select(chosen, graph)
    spec = {
        "workload": workload, "batch": batch, "threads": threads, "lr": LR, "checked": CHECKED,
        "trained": [*selection.weights, *sorted(selection.biases)],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="trainlet-bench-") as place:
        _write(Path(place), graph, chosen, batch)
        running = {}
        for name in ("trainlet", *rivals):
            if (worker := _start(Path(place), name, spec, pythons.get(name, sys.executable))) is not None:
                running[name] = worker
        rows = _time(running, seconds)
    about = {"workload": workload, "scheme": scheme, "batch": batch, "threads": threads}
    return [{**about, **row} for row in rows]


def _scheme(graph: Graph, workload: str, scheme: str) -> UpdateScheme:
    from trainlet.scheme import resolve_scheme

    return WORKLOADS[workload].sparse(graph) if scheme == "sparse" else resolve_scheme(scheme, graph)


def _write(place: Path, graph: Graph, scheme: UpdateScheme, batch: int) -> None:
    from trainlet.frontends.onnx_export import export_onnx
    from trainlet.ir.text import save_graph
    from trainlet.passes.rebatch import rebatch

    save_graph(graph, place / "network.tl")
    export_onnx(rebatch(graph, batch), place / "network.onnx")
    (place / "scheme.json").write_text(scheme.to_json())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCHES, batch, *graph.inputs[0].shape[1:])).astype(np.float32)
    y = rng.integers(0, graph.outputs[0].shape[-1], (BATCHES, batch)).astype(np.int32)
    np.savez(place / "data.npz", x=x, y=y)


class Worker:
    """A contender's process."""

    def __init__(self, place: Path, name: str, spec: Mapping[str, Any], python: str) -> None:
        (place / "spec.json").write_text(json.dumps({**spec, "contender": name}))
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        cores = sorted(os.sched_getaffinity(0))[: spec["threads"]]
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.cpu_worker", str(place)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip

    def ask(self, words: str | None = None) -> dict[str, Any] | None:
        """The next answer, None where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            if words is not None:
                print(words, file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith("{"):
                    return dict(json.loads(line))
        except (BrokenPipeError, ValueError):
            pass
        return None

    def error(self) -> str:
        """The last line it said before it ended."""
        said = (self.process.communicate()[1] or "no message").strip().splitlines()
        return said[-1] if said else "no message"


Running = tuple[Worker, dict[str, Any]]


def _start(place: Path, name: str, spec: Mapping[str, Any], python: str) -> Running | None:
    worker = Worker(place, name, spec, python)
    ready = worker.ask()
    if ready is None:
        print(f"SKIPPED {name} ({python}): {worker.error()}", file=sys.stderr, flush=True)
        return None
    return worker, ready


def _time(running: dict[str, Running], seconds: float) -> list[dict[str, Any]]:
    """Rounds in turn; then the rows. Losses are compared with PyTorch's, or without it with ours."""
    expected = next((running[n][1]["losses"] for n in ("torch", "trainlet") if n in running), [])
    for name in list(running):
        worst = max(abs(a - b) / abs(b) for a, b in zip(running[name][1]["losses"], expected, strict=True))
        running[name][1]["loss_difference"] = worst
        if not worst <= TOLERANCE:
            print(f"NOT COMPARED {name}: its losses differ by {worst:.1e}", file=sys.stderr, flush=True)
            running.pop(name)[0].ask("end")
    times: dict[str, list[float]] = {name: [] for name in running}
    rounds = 8
    for i in range(rounds + 1):
        for name, (worker, _) in running.items():
            each = times[name][-1] if times[name] else None
            steps = 3 if each is None else max(1, min(200, round(seconds / rounds / each)))
            answer = worker.ask(str(steps))
            assert answer is not None, f"{name} ended while it was timed"
            times[name] = (times[name] if i > 1 else []) + answer["times"]
    rows = []
    for name, (worker, ready) in running.items():
        memory = worker.ask("end") or {}
        low, median, high = (1e3 * float(q) for q in np.percentile(times[name], (25, 50, 75)))
        ready.pop("losses")
        best = 1e3 * min(times[name])
        rows.append(
            {
                "contender": name,
                "ms": median,
                "low_ms": low,
                "high_ms": high,
                "best_ms": best,
                **ready,
                **memory,
            }
        )
        worker.process.wait()
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as markdown: a line for each contender and scheme, columns by threads."""
    threads = sorted({r["threads"] for r in rows})
    lines = []
    for scheme in dict.fromkeys(r["scheme"] for r in rows):
        for name in dict.fromkeys(r["contender"] for r in rows if r["scheme"] == scheme):
            mine = {r["threads"]: r for r in rows if (r["scheme"], r["contender"]) == (scheme, name)}
            cells = [_cell(mine[t]) if t in mine else "-" for t in threads]
            memory = max(r.get("peak_bytes", 0) for r in mine.values()) / 1e6
            lines.append([scheme, name, *cells, f"{memory:.0f}"])
    heads = [f"{t} thread{'s' * (t > 1)}: ms (quartiles), best" for t in threads]
    return markdown(["scheme", "contender", *heads, "peak resident MB"], lines)


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['ms']:.2f} ({row['low_ms']:.2f}-{row['high_ms']:.2f}), {row['best_ms']:.2f}"


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    packages = ("torch", "jax", "numpy", "transformers", "scipy-openblas32")
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    return {
        "processor": name, "cores": os.cpu_count(), "python": platform.python_version(), "packages": found,
        "load": os.getloadavg(), "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
