"""All benchmarks. `python -m benchmarks` prints memory and time on int8 networks; the others have a name:

python -m benchmarks NAME …       # `python -m benchmarks list` says which there are
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks import ram_table, step_time
from benchmarks.tables import MODELS, ROOT, replace_between

# Name -> module, arguments that show what documents quote, what they print.
NAMED = {
    "cpu": (
        "cpu",
        "",
        "a training step beside PyTorch, torch.compile, JAX, ONNX Runtime, TensorFlow (hours)",
    ),
    "cpu-tables": ("cpu", "--tables", "the tables of what `cpu` has measured so far"),
    "cpu-gradients": ("cpu_checks", "gradients", "gradients of every trained tensor against float64 PyTorch"),
    "cpu-compile": ("cpu_checks", "compile", "seconds to compile, with an empty cache and a full one"),
    "cpu-standalone": ("cpu_checks", "standalone", "programs without Python: memory, start-up, size"),
    "cpu-memory": ("cpu_checks", "memory", "what the planner makes of a budget"),
    "cpu-prefix": ("cpu_checks", "prefix", "epochs with the cache of the frozen prefix"),
    "cpu-agree": ("cpu_accuracy", "agree", "accuracy after 200 steps, ours and PyTorch's"),
    "cpu-schemes": ("cpu_accuracy", "schemes", "accuracy, time and memory of full, sparse, head-only"),
    "cpu-kernels": ("cpu_kernels", "", "products beside OpenBLAS, and the time of a step by kernel"),
    "boards": ("board_table", "", "RAM, flash and instructions on emulated boards"),
    "person": ("person_detection", "", "person or not on a board"),
    "choosing": ("choosing", "", "schemes that are chosen against published ones"),
    "analysis-time": ("analysis_time", "", "what an analysis costs"),
    "memory-estimate": ("memory_estimate", "", "estimated against planned memory"),
}


def listing() -> str:
    """The named benchmarks, one a line."""
    return "\n".join(f"python -m benchmarks {name:<16} {what}" for name, (_, _, what) in NAMED.items())


def main() -> None:
    """The benchmark that the first argument names, or memory and time of int8 networks."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "list":
        print(listing())
    elif name in NAMED:
        module, arguments, _ = NAMED[name]
        sys.argv = [f"python -m benchmarks {name}", *arguments.split(), *sys.argv[2:]]
        importlib.import_module(f"benchmarks.{module}").main()
    else:
        _int8_networks()


def _int8_networks() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the reference networks")
    parser.add_argument("--data", type=Path, default=step_time.DATA, help="images for the steps")
    parser.add_argument("--rounds", type=int, default=100, help="timed steps of each (at least 50)")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "bench.json")
    parser.add_argument("--document", type=Path, help="also put the tables into this file, between its marks")
    args = parser.parse_args()
    results = {"memory": ram_table.measure(args.models)}
    tables = {"memory": ram_table.text(results["memory"])}
    print(f"# Memory\n\n{tables['memory']}", flush=True)
    results["step"] = step_time.measure(args.models, args.data, max(50, args.rounds))
    tables["step"] = step_time.text(results["step"])
    print(f"# Time of one training step\n\n{tables['step']}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1))
    print(f"numbers: {args.json}\n\nBy name:\n{listing()}")
    if args.document:
        text = args.document.read_text()
        for name, table in tables.items():
            text = replace_between(text, name, table)
        args.document.write_text(text)


if __name__ == "__main__":
    main()
