"""What an emulation found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainlet.device.board import Board
from trainlet.device.build import Image
from trainlet.device.counting import Counts, Region


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a firmware. `ram` is data + bss + the stack's high-water mark, `flash` text + data.

    bss includes the program's context (arena, state, scratch) and the buffer that samples arrive in,
    if there is one; it does not include the stack.
    """

    text_bytes: int
    data_bytes: int
    bss_bytes: int
    context_bytes: int
    sample_bytes: int
    stack_bytes: int
    stack_reserved_bytes: int
    ram_budget_bytes: int
    flash_budget_bytes: int

    @property
    def ram_bytes(self) -> int:
        return self.data_bytes + self.bss_bytes + self.stack_bytes

    @property
    def flash_bytes(self) -> int:
        return self.text_bytes + self.data_bytes


@dataclass(frozen=True)
class EmulationReport:
    """A program on an emulated board: what it learnt, whether the host agrees, what it cost.

    difference: None where every output, loss and trained tensor equals the host's bit for bit, else the first
    that does not. predict, steps: instructions of one inference and of each training call (with its
    update, where that is a call of its own).
    """

    program: str
    board: Board
    engine: str
    compiler: str
    losses: tuple[float, ...]
    difference: str | None
    memory: MemoryUse
    predict: Region
    steps: tuple[Region, ...]
    total_instructions: int

    @property
    def identical(self) -> bool:
        """Whether the board and the host computed the same bits."""
        return self.difference is None

    @property
    def step_instructions(self) -> int:
        """Instructions of the last training call."""
        return self.steps[-1].instructions

    def as_dict(self) -> dict[str, Any]:
        """`emulate --json`."""
        step, m, board = self.steps[-1], self.memory, self.board
        forward = step.forward_instructions()
        return {
            "program": self.program,
            "board": board.name,
            "engine": self.engine,
            "compiler": self.compiler,
            "fma": board.fma,
            "losses": list(self.losses),
            "identical": self.identical,
            "difference": self.difference,
            "ram_bytes": {
                "data": m.data_bytes,
                "bss": m.bss_bytes,
                "of_bss_context": m.context_bytes,
                "of_bss_samples": m.sample_bytes,
                "stack": m.stack_bytes,
                "stack_reserved": m.stack_reserved_bytes,
                "total": m.ram_bytes,
                "budget": m.ram_budget_bytes,
            },
            "flash_bytes": {
                "text": m.text_bytes,
                "data": m.data_bytes,
                "total": m.flash_bytes,
                "budget": m.flash_budget_bytes,
            },
            "instructions": {
                "predict": self.predict.instructions,
                "step": step.instructions,
                "step_forward": forward,
                "step_backward_and_update": step.instructions - forward,
                "each_step": [s.instructions for s in self.steps],
            },
            "transfers": {"predict": _transfers(self.predict), "step": _transfers(step)},
            "kernels": {"predict": _kernels(self.predict), "step": _kernels(step)},
            "projected_ms": {
                "predict": board.milliseconds(self.predict.instructions, self.predict.extra_words),
                "step": board.milliseconds(step.instructions, step.extra_words),
            },
            "assumption": board.assumption,
        }


def _kernels(region: Region) -> dict[str, dict[str, int]]:
    extra = region.kernel_extra_words()
    return {
        name: {"calls": calls, "instructions": count, "extra_words": extra.get(name, 0)}
        for name, (calls, count) in region.kernels().items()
    }


def _transfers(region: Region) -> dict[str, int]:
    return {"loads": region.loads, "stores": region.stores, "extra_words": region.extra_words}


def memory_use(image: Image, board: Board, stack_bytes: int) -> MemoryUse:
    """Sizes of an image, with the stack that a run used."""
    return MemoryUse(
        image.text_bytes,
        image.data_bytes,
        image.bss_bytes,
        image.context_bytes,
        image.sample_bytes,
        stack_bytes,
        board.stack_bytes,
        board.ram.budget_bytes,
        board.flash.budget_bytes,
    )


def merge_updates(counts: Counts, train: str) -> tuple[Region, ...]:
    """Training calls, each with the update that follows it, if the program has a function for that."""
    steps: list[Region] = []
    for region in counts.regions:
        if region.name == train:
            steps.append(region)
        elif region.name == "apply":
            last = steps.pop()
            sums = (getattr(last, k) + getattr(region, k) for k in ("loads", "stores", "extra_words"))
            both = last.instructions + region.instructions
            steps.append(Region(last.name, both, last.calls + region.calls, *sums))
    return tuple(steps)


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report of `as_dict` as lines of plain text."""
    ram, flash, n = report["ram_bytes"], report["flash_bytes"], report["instructions"]
    ms, t = report["projected_ms"], report["transfers"]["step"]
    same = "bit for bit as on this machine" if report["identical"] else f"DIFFERS: {report['difference']}"
    losses = report["losses"]
    lines = [
        f"{report['program']} on {report['board']} ({report['engine']}, {report['compiler']})",
        f"  {len(losses)} steps, loss {losses[0]:.4f} -> {losses[-1]:.4f}, {same}",
        f"  RAM    {ram['total']:>11,} of {ram['budget']:,}   .data {ram['data']:,} + .bss {ram['bss']:,} "
        f"+ stack {ram['stack']:,} used of {ram['stack_reserved']:,}",
        f"  flash  {flash['total']:>11,} of {flash['budget']:,}   .text {flash['text']:,} "
        f"+ .data {flash['data']:,}",
        f"  predict {n['predict']:>13,} instructions   {ms['predict']:,.1f} ms",
        f"  step    {n['step']:>13,} instructions   {ms['step']:,.1f} ms   "
        f"forward {n['step_forward']:,}, backward and update {n['step_backward_and_update']:,}",
        f"  of these {t['loads']:,} load and {t['stores']:,} store; they move {t['extra_words']:,} words "
        "beyond one each",
        f"  {report['assumption']}",
        "  kernel of a step                        calls  instructions   share",
    ]
    for name, k in report["kernels"]["step"].items():
        share = k["instructions"] / n["step"]
        lines.append(f"    {name:<36} {k['calls'] or '':>6} {k['instructions']:>13,}  {share:>6.1%}")
    return lines
