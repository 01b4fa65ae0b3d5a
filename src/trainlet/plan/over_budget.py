"""What is said of a program that needs more RAM than there is: how much, in which step, for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainlet.plan.program import Function, Program

LARGEST = 4  # tensors that are named


def over_budget(program: Program, budget_bytes: int) -> str:
    """What to tell a user whose budget is too small."""
    return needs(program, f", the budget is {budget_bytes:,}")


def needs(program: Program, against: str) -> str:
    """Two sentences: sizes, with `against` what they exceed in words; the peak and what is alive there."""
    parts = ", ".join(f"{m} {program.bytes[m]:,}" for m in ("arena", "state", "scratch"))
    return (
        f"{program.name} with scheme {program.module.selection.name} needs {program.ram_bytes:,} bytes of "
        f"RAM ({parts}){against}. {peak(program)}"
    )


def peak(program: Program) -> str:
    """A sentence: the function and step at which most bytes are alive, the user's layer, what is alive."""
    name, worst = max(program.functions.items(), key=lambda item: item[1].peak_bytes)
    alive = ", ".join(f"{r.name} {r.bytes:,}" for r in worst.peak_live()[:LARGEST])
    return f"The peak is in {name} {_where(worst)}, where {alive} are alive."


def _where(function: Function) -> str:
    at, nodes = function.peak_step, function.graph.nodes
    if not 0 <= at < len(nodes):
        return "at its call" if at < 0 else "at its return"
    node = nodes[at]
    layer = f" of {node.source}" if node.source else ""
    return f"at step {at} of {len(nodes)} ({node.op} -> {node.output.name}{layer})"
