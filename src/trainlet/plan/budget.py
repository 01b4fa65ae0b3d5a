"""What a memory budget asks for: cheap activations computed twice, a batch in parts, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainlet.ir.ops import OPS
from trainlet.passes.recompute import recomputed
from trainlet.plan.program import Program

if TYPE_CHECKING:
    from trainlet.api import Settings


MIXING = ("BatchNormTrain",)  # what a sample gets here depends on the others of its batch: no parts


@dataclass(frozen=True)
class MemoryChoice:
    """How a program was made to fit. RAM in bytes: arena + state + scratch.

    `calls` of `micro_batch` samples make one update of the batch that was asked for; `recomputed` names the
    layers that run twice: `recomputed_macs` of all `macs`. `whole_bytes`: RAM without all this.
    """

    calls: int
    micro_batch: int
    recomputed: tuple[str, ...]
    recomputed_macs: int
    macs: int
    ram_bytes: int
    whole_bytes: int

    @classmethod
    def of(cls, saved: Mapping[str, Any] | None) -> MemoryChoice | None:
        """What dataclasses.asdict made of one, through JSON."""
        return None if saved is None else cls(**{**saved, "recomputed": tuple(saved["recomputed"])})

    @property
    def text(self) -> str:
        """One line for the user."""
        parts = []
        if self.calls > 1:
            parts.append(f"{self.calls} calls of {self.micro_batch} samples make one update")
        if self.recomputed:
            share = self.recomputed_macs / self.macs
            parts.append(f"{len(self.recomputed)} activations are computed twice ({share:.1%} more work)")
        saved = self.whole_bytes - self.ram_bytes
        how = "; ".join(parts) or "the whole batch fits as it is"
        return f"{how}: {self.ram_bytes:,} bytes of RAM, {saved:,} fewer than the whole batch takes"


def fit_budget(settings: Settings, build: Callable[[Settings], Program]) -> tuple[Settings, MemoryChoice]:
    """Settings whose program fits settings.budget_bytes, and what was chosen; build(settings) plans one.

    Tried in the order of what they cost in time: the whole batch; the same with recomputation; then ever
    smaller parts of it whose gradients are summed, without and with recomputation. The first that fits wins.
    An update is that of the whole batch: recomputation keeps its bits, parts differ by how sums are ordered.
    A network that normalises over its batch is not split.
    Raises BudgetError where nothing fits, for the smallest program there is.
    """
    budget, free = settings.budget_bytes, replace(settings, budget_bytes=None)
    whole = build(free)
    smallest = whole
    if budget is None or whole.ram_bytes <= budget:
        return settings, _choice(settings, whole, whole)
    whole_only = any(n.op in MIXING for n in whole.main.graph.nodes)
    least = settings.batch if whole_only else 1
    for micro in (m for m in range(settings.batch, least - 1, -1) if settings.batch % m == 0):
        part = replace(free, batch=micro, accumulate=settings.accumulate or micro < settings.batch)
        program = whole if micro == settings.batch else build(part)
        if program.ram_bytes > budget:
            fixed = program.ram_bytes - program.bytes["arena"]
            part = replace(part, arena_target_bytes=max(0, budget - fixed))
            program = build(part)
        if program.ram_bytes <= budget:
            return replace(part, budget_bytes=budget), _choice(settings, program, whole)
        smallest = min(smallest, program, key=lambda p: p.ram_bytes)
    raise smallest.over(budget)


def _choice(settings: Settings, program: Program, whole: Program) -> MemoryChoice:
    again = recomputed(program.main.graph)
    micro = program.main.graph.inputs[0].shape[0]
    return MemoryChoice(
        settings.batch // micro,
        micro,
        tuple(n.source or n.output.name for n in again),
        sum(OPS[n.op].macs(n) for n in again),
        sum(program.main.macs().values()),
        program.ram_bytes,
        whole.ram_bytes,
    )
