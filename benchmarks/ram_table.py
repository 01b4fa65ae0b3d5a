"""Memory of every published scheme under every master at batch 1, and what compiling costs.

    python -m benchmarks.ram_table [--models DIR] [--markdown FILE] [--document docs/benchmarks.md]

`published` is the analytic price of Lin et al., arXiv:2206.15472: saved activations, trained weights and
biases, no forward working set, no gradients. `arena` is planned and holds those too; `bound` is the largest
sum of bytes alive at once in its order, which no placement can beat; `ratio` is one over the other.
The second table is about the image, in the arena or by rows, and what the peak would be without the groups of
hidden channels of the backward pass, and without streaming by rows (images by rows: all of the image, too).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.tables import MODELS, NETWORKS, find_model, markdown, replace_between
from trainlet import api
from trainlet.backends.c99 import write_sources
from trainlet.scheme.memory import analytic_bits
from trainlet.scheme.named import PUBLISHED

# Those of the board table.
BOARD_SCHEMES = ("mcunet-5fps:49kb", "mcunet-5fps:99kb", "mbv2-w0.35:99kb", "proxyless-w0.3:98kb")
SAVINGS = ("groups of hidden channels", "streaming by rows", "both")
SAVING_COLUMNS = ("image", "arena", "bound", "no groups", "no streaming", "neither", "RAM")
MEMORY = ("arena", "bound", "ratio", "state", "scratch", "RAM", "flash", "published")


def scheme_rows(scheme: str, path: Path) -> list[dict[str, Any]]:
    """One row a master: bytes by memory of a published scheme at batch 1, with a head of ten classes."""
    graph, rows = api.load(path), []
    base = api.Settings(scheme=scheme, batch=1, classes=10)
    for master in api.MASTERS:
        settings = replace(base, master=master)
        program = api.plan(graph, settings)
        sizes, bound = program.bytes, max(f.lower_bound_bytes for f in program.functions.values())
        row = {
            "scheme": scheme,
            "master": master,
            **{f"{memory}_bytes": sizes[memory] for memory in ("arena", "state", "scratch")},
            "lower_bound_bytes": bound,
            "ratio": sizes["arena"] / bound,
            "ram_bytes": program.ram_bytes,
            "flash_bytes": sizes["flash"],
            "published_bytes": analytic_bits(*api.prepare(graph, settings)) / 8,
        }
        rows.append(row)
    return rows


def saving_rows(scheme: str, path: Path) -> list[dict[str, Any]]:
    """One row a place of the image, stochastic master: what keeps the arena small, and how much it saves."""
    rows = []
    for where in ("arena", "rows"):
        settings = api.Settings(scheme=scheme, master="stochastic", batch=1, classes=10, input=where)
        report = api.plan_report(api.plan(path, settings, for_board=True))
        row = {"scheme": scheme, "image": where, "arena_bytes": report["ram_bytes"]["arena"]}
        row |= {"bound_bytes": report["lower_bound_bytes"], "saved_bytes": report["saved_bytes"]}
        rows.append({**row, "ram_bytes": report["ram_bytes"]["total"]})
    return rows


def saving_cells(row: dict[str, Any]) -> list[str]:
    saved = {"both": max(row["saved_bytes"].values(), default=0), **row["saved_bytes"]}
    without = (row["bound_bytes"] + saved.get(name, 0) for name in SAVINGS)
    sizes = (row["arena_bytes"], row["bound_bytes"], *without, row["ram_bytes"])
    return [row["scheme"], row["image"], *(f"{n:,}" for n in sizes)]


def cells(row: dict[str, Any]) -> list[str]:
    sizes = [f"{row[k]:,}" for k in ("state_bytes", "scratch_bytes", "ram_bytes", "flash_bytes")]
    return [
        row["scheme"],
        row["master"],
        f"{row['arena_bytes']:,}",
        f"{row['lower_bound_bytes']:,}",
        f"{row['ratio']:.3f}",
        *sizes,
        f"{row['published_bytes'] / 1024:.1f} KB",
    ]


def compile_seconds(path: Path, scheme: str) -> float:
    """Graph to C sources, plan and emission, of a network that is loaded already."""
    graph = api.load(path)
    settings = api.Settings(scheme=scheme, master="residual", batch=1, classes=10)
    with TemporaryDirectory() as folder:
        started = time.process_time()
        write_sources(api.plan(graph, settings), Path(folder))
        return time.process_time() - started


def import_seconds(runs: int = 5) -> float:
    """`import trainlet` in a fresh interpreter, less the interpreter's own start; the median."""
    return statistics.median(_run("import trainlet") for _ in range(runs)) - statistics.median(
        _run("pass") for _ in range(runs)
    )


def _run(code: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return sum(after[i] - before[i] for i in (2, 3))  # of children: user, system


def measure(models: Path) -> dict[str, Any]:
    """All of it, JSON-ready. Networks that are not in `models` are left out, and named in "missing"."""
    found = {name: path for name in NETWORKS if (path := find_model(models, name)) is not None}
    schemes = [s for s in PUBLISHED if s.split(":")[0] in found]
    return {
        "schemes": [row for s in schemes for row in scheme_rows(s, found[s.split(":")[0]])],
        "savings": [
            row for s in BOARD_SCHEMES if s in schemes for row in saving_rows(s, found[s.split(":")[0]])
        ],
        "compile_seconds": {n: compile_seconds(p, _middle(n)) for n, p in found.items()},
        "import_seconds": import_seconds(),
        "missing": [n for n in NETWORKS if n not in found],
    }


def _middle(network: str) -> str:
    """The network's third scheme, of about 99 KB."""
    return [s for s in PUBLISHED if s.startswith(network + ":")][2]


def text(result: dict[str, Any]) -> str:
    """The tables in Markdown."""
    parts = ["Bytes at batch 1, ten classes; the stack is not counted.", ""]
    if result["missing"]:
        parts += [f"NOT MEASURED, the model files are missing: {', '.join(result['missing'])}", ""]
    parts += [markdown(("scheme", "master", *MEMORY), [cells(r) for r in result["schemes"]]), ""]
    parts += [
        "Stochastic master, scratch as on a microcontroller; bytes of the peak without what lowers it.",
        "",
    ]
    parts += [markdown(("scheme", *SAVING_COLUMNS), [saving_cells(r) for r in result["savings"]]), ""]
    seconds = [(name, f"{s:.2f}") for name, s in result["compile_seconds"].items()]
    parts += [markdown(("network", "graph to C, s of CPU time"), seconds)]
    return "\n".join([*parts, "", f"`import trainlet`: {result['import_seconds']:.3f} s of CPU time", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the reference networks")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--document", type=Path, help="also put the tables into this file, between its marks")
    args = parser.parse_args(arguments)
    report = text(measure(args.models))
    print(report)
    if args.document:
        args.document.write_text(replace_between(args.document.read_text(), "memory", report))
    if args.markdown:
        args.markdown.write_text(report)


if __name__ == "__main__":
    main()
