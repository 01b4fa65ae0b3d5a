"""Where the time of a training step goes on this processor, by kind of step and step by step.

    python -m benchmarks.cpu_profile [--workload w1] [--batch 8] [--scheme full] [--threads 1] [--top 20]

A step's time is the least processor time of the calling thread over all rounds, so that other load disturbs
little; with more than one thread it includes the wait for the others. GB/s count each operand and result
once, as if caches kept nothing between steps.
GFLOP/s of Winograd's convolutions count the products of the direct sum.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import markdown
from benchmarks.torch_models import WORKLOADS
from trainlet.backends.cpu import plan_program, write_program
from trainlet.backends.cpu.fuse import STARTS, endings
from trainlet.backends.cpu.writer import row_of
from trainlet.ir import Node
from trainlet.ir.ops import OPS
from trainlet.plan.program import Function, Program
from trainlet.runtime.profile import Profile, first_step


@dataclass(frozen=True)
class Step:
    """One kernel: its node, least time, and what it computes and moves, fused nodes included."""

    node: Node
    us: float
    macs: int
    bytes: int

    @property
    def shapes(self) -> str:
        """Shapes of the first two operands and of the result."""
        given = [v.shape for v in self.node.inputs[:2] if v is not None]
        return " ".join("x".join(map(str, s)) for s in (*given, self.node.output.shape))


def step_times(program: Program, threads: int, rounds: int) -> list[Step]:
    """Every kernel of the training function, timed in a build of its own."""
    with tempfile.TemporaryDirectory() as name:
        write_program(program, Path(name), threads)
        profile = Profile(program, Path(name))
    profile.run(rounds)
    first, count = first_step(program), len(program.main.graph.nodes)
    return list(_steps(program.main, profile.least_us()[first : first + count].tolist()))


def _steps(f: Function, times: list[float]) -> Iterable[Step]:
    """Steps that took time; a fused one counts where it began."""
    ends = endings(f, lambda node: node.op in STARTS and row_of(node) is not None)
    for i, (node, us) in enumerate(zip(f.graph.nodes, times, strict=True)):
        if us > 0:
            yield Step(node, us, OPS[node.op].macs(node), _moved(f, [i, *ends[i].nodes]))


def _moved(f: Function, fused: list[int]) -> int:
    """Bytes that enter or leave some nodes that are computed as one."""
    nodes = [f.graph.nodes[i] for i in fused]
    inner = {n.output.name for n in nodes[:-1]}
    values = {v.name: v for n in nodes for v in (*n.operands(), *n.outputs)}
    return sum(v.bytes for name, v in values.items() if name not in inner)


def kind(node: Node) -> str:
    """Op, and the window of a convolution."""
    if not node.op.startswith("Conv"):
        return node.op
    if "kernel" in node.attrs:
        size, depthwise = tuple(node.attrs["kernel"]), bool(node.attrs["depthwise"])
    else:
        shape = node.inputs[1].shape  # type: ignore[union-attr]
        size, depthwise = shape[1:-1], shape[-1] == 1 and node.attrs["groups"] > 1
    return f"{node.op} {'depthwise ' * depthwise}{'x'.join(map(str, size))}"


def _row(name: str, us: float, total: float, macs: int, moved: int) -> list[str]:
    speed = f"{2e-3 * macs / us:.1f}" if macs else ""
    return [name, f"{us:.0f}", f"{100 * us / total:.1f}", speed, f"{moved / us / 1e3:.1f}"]


def by_kind(steps: list[Step]) -> str:
    """Time by kind of step, largest first."""
    total = sum(s.us for s in steps)
    kinds: dict[str, list[Step]] = {}
    for s in steps:
        kinds.setdefault(kind(s.node), []).append(s)
    rows = [
        _row(f"{name} ({len(group)})", us, total, sum(s.macs for s in group), sum(s.bytes for s in group))
        for name, group in kinds.items()
        for us in [sum(s.us for s in group)]
    ]
    rows.sort(key=lambda row: -float(row[1]))
    return markdown(["step", "us", "%", "GFLOP/s", "GB/s"], [*rows, ["all", f"{total:.0f}", "100", "", ""]])


def largest(steps: list[Step], top: int) -> str:
    """The steps that take longest, each with its shapes."""
    total = sum(s.us for s in steps)
    chosen = sorted(steps, key=lambda s: -s.us)[:top]
    rows = [_row(f"{kind(s.node)}: {s.shapes}", s.us, total, s.macs, s.bytes) for s in chosen]
    return markdown(["step: operands, result", "us", "%", "GFLOP/s", "GB/s"], rows)


def main() -> None:
    from trainlet.api import Settings, derive
    from trainlet.frontends.torch import from_module

    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_profile")
    parser.add_argument("--workload", default="w1", choices=tuple(WORKLOADS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--scheme", default="full", choices=("full", "sparse"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--top", type=int, default=20, help="single steps to list")
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    graph = from_module(workload.module(0), workload.example())
    scheme = "full" if args.scheme == "full" else workload.sparse(graph)
    program = plan_program(derive(graph, Settings(batch=args.batch, scheme=scheme)), args.threads)
    steps = step_times(program, args.threads, args.rounds)
    print(f"# {args.workload}, batch {args.batch}, {args.scheme}, {args.threads} threads\n")
    print(by_kind(steps))
    print(f"\n{largest(steps, args.top)}")


if __name__ == "__main__":
    main()
