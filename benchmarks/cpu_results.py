"""The file of results of benchmarks/cpu.py, to which every part of a run adds, and its tables.

{"rows": [...], "checks": {...}, "machine": {...}}: one row for each (workload, batch, scheme, threads,
contender), the last one measured; a check is the losses of a contender's first steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

KEY = ("workload", "batch", "scheme", "threads", "contender")
EAGER = ("torch", "torch channels_last")  # the better of the two layouts counts
Row = Mapping[str, Any]


class Results:
    """What was measured so far, in a file of JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text()) if path.is_file() else {}
        self.rows: list[dict[str, Any]] = found.get("rows", [])
        self.checks: dict[str, list[float]] = found.get("checks", {})
        self.machine: dict[str, Any] = found.get("machine", {})

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows, in the place of earlier ones of the same key."""
        new = {_key(r): r for r in rows}
        self.rows = sorted([r for r in self.rows if _key(r) not in new] + list(new.values()), key=_key)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        about = {"machine": self.machine, "rows": self.rows, "checks": self.checks}
        self.path.write_text(json.dumps(about, indent=1))


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[k] for k in KEY)


def step_table(rows: Sequence[Row]) -> str:
    """A line for each workload, batch, scheme and contender; columns by threads."""
    threads = sorted({r["threads"] for r in rows})
    lines = []
    for (workload, batch, scheme, name), mine in _grouped(rows, ("workload", "batch", "scheme", "contender")):
        by_threads = {r["threads"]: r for r in mine}
        cells = [_cell(by_threads[t]) if t in by_threads else "" for t in threads]
        memory = max(r["peak_bytes"] for r in mine) / 1e6
        worst = max(r["loss_difference"] for r in mine)
        lines.append([workload, batch, scheme, name, *cells, f"{memory:.0f}", f"{worst:.0e}"])
    heads = [f"{t} thread{'s' * (t > 1)}: ms (quartiles), fastest" for t in threads]
    return markdown(
        ["workload", "batch", "scheme", "contender", *heads, "peak resident MB", "losses apart"], lines
    )


def _cell(row: Row) -> str:
    digits = 2 if row["ms"] < 100 else 0
    ms, low, high, best = (f"{row[k]:.{digits}f}" for k in ("ms", "low_ms", "high_ms", "best_ms"))
    return f"{ms} ({low}-{high}), {best}"


def _grouped(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        found.setdefault(tuple(r[k] for k in by), []).append(r)
    return list(found.items())


@dataclass(frozen=True)
class Goal:
    """Ours of `scheme` is to be `times` as fast as PyTorch eager's `against` on a workload and batch."""

    workload: str
    batch: int
    scheme: str
    against: str
    times: float


GOALS = (
    Goal("w1", 1, "full", "full", 5),
    Goal("w1", 1, "sparse", "full", 14),
    Goal("w1", 1, "sparse", "sparse", 8),
    Goal("w1", 8, "full", "full", 4),
    Goal("w1", 8, "sparse", "sparse", 5),
    Goal("efficientnet-lite0", 8, "full", "full", 2),
    Goal("efficientnet-lite0", 8, "sparse", "sparse", 2.5),
    Goal("w2", 8, "full", "full", 1.1),
    Goal("w2", 8, "sparse", "sparse", 1.6),
    Goal("resnet50", 8, "full", "full", 1),
)


def goal_table(rows: Sequence[Row]) -> str:
    """Ratios of medians, each side at its best number of threads, PyTorch at its best layout."""
    lines = []
    for g in GOALS:
        mine = [r for r in rows if (r["workload"], r["batch"]) == (g.workload, g.batch)]
        ours = _best(mine, lambda r, g=g: r["contender"] == "trainlet" and r["scheme"] == g.scheme)
        theirs = _best(mine, lambda r, g=g: r["contender"] in EAGER and r["scheme"] == g.against)
        if ours is None or theirs is None:
            continue
        ratio, least = theirs["ms"] / ours["ms"], theirs["best_ms"] / ours["best_ms"]
        said = "holds" if ratio >= g.times else "missed"
        lines.append(
            [f"{g.workload}, batch {g.batch}", f"{g.scheme} against {g.against}",
             f"{ours['ms']:.4g} on {ours['threads']}", f"{theirs['ms']:.4g} on {theirs['threads']}",
             f"{ratio:.1f}", f"{least:.1f}", f"{g.times:g}", said]
        )  # fmt: skip
    return markdown(
        ["workload", "scheme", "ours: ms, threads", "PyTorch's", "ratio", "of fastest steps", "goal", ""],
        lines,
    )


def _best(rows: Sequence[Row], which: Callable[[Row], bool]) -> Row | None:
    return min((r for r in rows if which(r)), key=lambda r: float(r["ms"]), default=None)


def memory_table(rows: Sequence[Row]) -> str:
    """Resident memory beyond the weights, which all of them hold; PyTorch in its leaner layout."""
    lines = []
    for (workload, batch, scheme), mine in _grouped(rows, ("workload", "batch", "scheme")):
        weights = max(r["weights_bytes"] for r in mine)

        def least(names: Sequence[str], mine: list[Row] = mine, weights: int = weights) -> float | None:
            found = [r["peak_bytes"] - weights for r in mine if r["contender"] in names]
            return min(found) / 1e6 if found else None

        ours, theirs = least(("trainlet",)), least(EAGER)
        if ours is None or theirs is None:
            continue
        share = f"{ours / theirs:.2f}"
        lines.append([workload, batch, scheme, f"{weights / 1e6:.1f}", f"{ours:.0f}", f"{theirs:.0f}", share])
    return markdown(["workload", "batch", "scheme", "weights MB", "ours MB", "PyTorch's MB", "share"], lines)


def ready_table(rows: Sequence[Row]) -> str:
    """Seconds from starting a contender's process to its first step's end, and of making its program.

    Ours is compiled before, once; the others that compile do so at each start. All imports are in the first.
    """
    lines = []
    for (workload, batch, scheme, name), mine in _grouped(rows, ("workload", "batch", "scheme", "contender")):
        start, build = (min(r[k] for r in mine) for k in ("start_s", "compile_s"))
        lines.append([f"{workload}, batch {batch}, {scheme}", name, f"{start:.1f}", f"{build:.1f}"])
    return markdown(["step", "contender", "start s", "compile s"], lines)
