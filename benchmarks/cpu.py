"""One training step on this processor: ours beside PyTorch, torch.compile, JAX, ONNX Runtime and TensorFlow.

    python -m benchmarks.cpu                     # every workload, every contender: hours
    python -m benchmarks.cpu --workloads w1 --batches 8 --rivals torch,jax --threads 1
    python -m benchmarks.cpu --check …           # no timing: installs, compiles, compares losses
    python -m benchmarks.cpu --tables            # what all parts so far have measured

Parts add to one file of results (--json), from which the tables are made. Each framework lives in an
environment of its own under build/envs, installed when first asked for (--env NAME=PYTHON takes one that
is there); what cannot be installed or run is skipped with a line on stderr. Each contender runs in a process
of its own, pinned to as many processors as it has threads. Before it is timed, its losses over 20 steps from
the same weights on the same batches are compared with PyTorch's: who differs is not in the table. Then all
take a few steps in turn, for several rounds, so that what else the machine does hits all; the table has the
median of all steps, the quartiles, and the fastest step, which a busy machine hides least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cpu_environments as environments
from benchmarks.cpu_results import Results, goal_table, memory_table, ready_table, step_table
from benchmarks.tables import ROOT, replace_between
from benchmarks.torch_models import WORKLOADS
from trainlet.ir import Graph
from trainlet.scheme import UpdateScheme

CHECKED, BATCHES, ROUNDS = 20, 4, 8
TOLERANCE = 1e-2  # of the losses over the checked steps, relative
RIVALS = ("torch", "torch channels_last", "torch.compile", "jax", "onnxruntime", "tensorflow")
SCHEMES = ("full", "sparse", "head")
TABLES = {"steps": step_table, "goals": goal_table, "resident": memory_table, "ready": ready_table}


@dataclass(frozen=True)
class Part:
    """One comparison."""

    workload: str
    batch: int
    scheme: str
    threads: int

    def check_key(self, contender: str) -> str:
        """Of the losses of this step; ours count for the sources that computed them."""
        from trainlet.compiled.cache import package_digest

        digest = f" {package_digest()[:12]}" if contender == "trainlet" else ""
        return f"{self.workload} {self.batch} {self.scheme} {contender}{digest}"


def main() -> None:
    args = _arguments()
    results = Results(args.json)
    if not args.tables:
        pythons = dict(e.split("=", 1) for e in args.env)
        for workload in args.workloads:
            graph = network(workload)
            for batch in map(int, args.batches):
                for threads in map(int, args.threads):
                    for scheme in args.schemes:
                        part = Part(workload, batch, scheme, threads)
                        rows = compare(graph, part, args.rivals, pythons, results, args)
                        print("\n".join(json.dumps(row) for row in rows), file=sys.stderr, flush=True)
        results.machine = results.machine if args.check else machine()
        results.save()
    if args.check:
        return
    tables = {name: table(results.rows) for name, table in TABLES.items()}
    tables["installed"] = environments.install_table()
    print("\n\n".join(f"## {name}\n\n{text}" for name, text in tables.items()))
    print(f"\nmachine: {json.dumps(results.machine)}\nnumbers: {args.json}")
    if args.document:
        text = args.document.read_text()
        for name, table in tables.items():
            text = replace_between(text, name, table)
        args.document.write_text(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--workloads", type=_words, default=list(WORKLOADS), help=f"of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--schemes", type=_words, default=list(SCHEMES))
    parser.add_argument("--batches", type=_words, default=["1", "8"])
    parser.add_argument("--threads", type=_words, default=["1", "2"])
    parser.add_argument("--rivals", type=_words, default=list(RIVALS), help=f"of {', '.join(RIVALS)}")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--seconds", type=float, default=4.0, help="timed, of each contender, about")
    parser.add_argument("--check", action="store_true", help="install, compile and compare losses only")
    parser.add_argument("--tables", action="store_true", help="measure nothing, print the tables")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "cpu.json")
    parser.add_argument("--document", type=Path, help="also put the tables into this file, between its marks")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]


def network(workload: str) -> Graph:
    from trainlet.frontends.torch import from_module

    w = WORKLOADS[workload]
    return from_module(w.module(0), w.example())


def compare(
    graph: Graph,
    part: Part,
    rivals: Sequence[str],
    pythons: Mapping[str, str],
    results: Results,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """A row for each contender on one configuration, added to the results; none where only `args.check`."""
    from trainlet.scheme import select

    chosen = _scheme(graph, part.workload, part.scheme)
    selection = select(chosen, graph)
    names = ["trainlet", *rivals]
    todo = [n for n in names if part.check_key(n) not in results.checks] if args.check else names
    with tempfile.TemporaryDirectory(prefix="trainlet-bench-") as place:
        _write(Path(place), graph, chosen, part.batch, "onnxruntime" in todo)
        trained = [*selection.weights, *sorted(selection.biases)]
        spec = {**asdict(part), "lr": WORKLOADS[part.workload].lr, "trained": trained}
        running: dict[str, Running] = {}
        for name in todo:
            checked = 1 if part.check_key(name) in results.checks else CHECKED
            started = _start(Path(place), name, {**spec, "checked": checked}, pythons)
            if started is not None:
                results.checks.setdefault(part.check_key(name), started[1]["losses"])
                results.save()
                running[name] = started
            if args.check and started is not None:  # not all at once in memory
                started[0].end()
        _compare_losses(part, running, results)
        rows = [] if args.check else _time(running, args.seconds)
    weights = sum(t.data.nbytes for t in graph.constants.values())
    about = {"weights_bytes": weights, "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}
    rows = [{**asdict(part), **row, **about} for row in rows]
    results.add(rows)
    results.save()
    return rows


def _compare_losses(part: Part, running: dict[str, Running], results: Results) -> None:
    """Stop who does not compute PyTorch's losses (ours, where PyTorch did not run)."""
    keys = [part.check_key(n) for n in ("torch", "trainlet")]
    expected = next((results.checks[k] for k in keys if k in results.checks), [])
    for name in list(running):
        worker, ready = running[name]
        losses = results.checks[part.check_key(name)]
        pairs = [*zip(losses, expected, strict=True), (ready["losses"][0], losses[0])]
        worst = max(abs(a - b) / abs(b) for a, b in pairs)
        ready["loss_difference"] = worst
        if not worst <= TOLERANCE:
            print(f"NOT COMPARED {name}: its losses differ by {worst:.1e}", file=sys.stderr, flush=True)
            running.pop(name)
            worker.end()


def _scheme(graph: Graph, workload: str, scheme: str) -> UpdateScheme:
    from trainlet.scheme import resolve_scheme

    return WORKLOADS[workload].sparse(graph) if scheme == "sparse" else resolve_scheme(scheme, graph)


def _write(place: Path, graph: Graph, scheme: UpdateScheme, batch: int, as_onnx: bool) -> None:
    from trainlet.ir.text import save_graph

    save_graph(graph, place / "network.tl")
    if as_onnx:
        from trainlet.frontends.onnx_export import export_onnx
        from trainlet.passes.rebatch import rebatch

        export_onnx(rebatch(graph, batch), place / "network.onnx")
    (place / "scheme.json").write_text(scheme.to_json())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCHES, batch, *graph.inputs[0].shape[1:])).astype(np.float32)
    y = rng.integers(0, graph.outputs[0].shape[-1], (BATCHES, batch)).astype(np.int32)
    np.savez(place / "data.npz", x=x, y=y)


class Worker:
    """A contender's process."""

    def __init__(self, place: Path, name: str, spec: Mapping[str, Any], python: str | Path) -> None:
        launched = {"contender": name, "launched": time.time()}
        (place / "spec.json").write_text(json.dumps({**spec, **launched}))
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "TRAINLET_CACHE": str(program_folder()),
            "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor"),
        }  # fmt: skip
        cores = sorted(os.sched_getaffinity(0))[: spec["threads"]]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (lives as long as the process)
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.cpu_worker", str(place)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip

    def ask(self, words: str | None = None) -> dict[str, Any] | None:
        """The next answer, None where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if words is not None:
                print(words, file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith("{"):
                    return dict(json.loads(line))
        return None

    def end(self) -> dict[str, Any]:
        """What it says of itself at the end."""
        said = self.ask("end") or {}
        self.process.communicate()
        self.errors.close()
        return said

    def error(self) -> str:
        """The last line it said before it ended."""
        self.process.communicate()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return said[-1] if said else "no message"


def program_folder() -> Path:
    """Our cache while we are timed: nothing of a user's, and nothing of other sources than these."""
    from trainlet.compiled.cache import package_digest

    return ROOT / "build" / "programs" / package_digest()[:16]


Running = tuple[Worker, dict[str, Any]]


def _start(place: Path, name: str, spec: dict[str, Any], pythons: Mapping[str, str]) -> Running | None:
    environment = environments.environment_of(name)
    try:
        python = pythons.get(environment) or environments.interpreter(environment)
    except RuntimeError as error:
        print(f"SKIPPED {name}: {error}", file=sys.stderr, flush=True)
        return None
    if name == "trainlet":
        Worker(place, name, {**spec, "checked": 1}, python).end()  # compiled ahead of time
    worker = Worker(place, name, spec, python)
    ready = worker.ask()
    if ready is None:
        print(f"SKIPPED {name} ({python}): {worker.error()}", file=sys.stderr, flush=True)
        return None
    ready["install_bytes"] = None if environment in pythons else environments.install_bytes(environment)
    return worker, ready


def _time(running: dict[str, Running], seconds: float) -> list[dict[str, Any]]:
    """Rounds in turn, the first of them to warm up; then the rows."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for i in range(ROUNDS + 1):
        for name, (worker, _) in running.items():
            each = times[name][-1] if times[name] else None
            steps = 3 if each is None else max(1, min(200, round(seconds / ROUNDS / each)))
            answer = worker.ask(str(steps))
            assert answer is not None, f"{name} ended while it was timed: {worker.error()}"
            times[name] = (times[name] if i > 1 else []) + answer["times"]
    return [_row(name, *running[name], times[name]) for name in running]


def _row(name: str, worker: Worker, ready: dict[str, Any], times: list[float]) -> dict[str, Any]:
    low, median, high = (1e3 * float(q) for q in np.percentile(times, (25, 50, 75)))
    facts = {k: v for k, v in ready.items() if k != "losses"}
    if "compile_s" not in facts:  # with the first step's excess over a later one
        facts["compile_s"] = facts.get("build_s", 0.0) + max(0.0, facts["first_step_s"] - median / 1e3)
    return {
        "contender": name, "ms": median, "low_ms": low, "high_ms": high, "best_ms": 1e3 * min(times),
        "steps": len(times), **facts, **worker.end(),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("torch", "jax", "numpy", "transformers", "tensorflow_cpu", "onnxruntime-training")
    found = {}
    for name in environments.ENVIRONMENTS:
        found[name] = {k: v for k, v in environments.versions(name).items() if k in wanted}
    name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    return {
        "processor": name, "cores": os.cpu_count(), "python": platform.python_version(), "packages": found,
        "load": os.getloadavg(), "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
