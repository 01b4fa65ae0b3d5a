"""A program against the memories of a board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainlet.errors import BudgetError
from trainlet.plan.over_budget import needs
from trainlet.plan.program import Program

if TYPE_CHECKING:
    from trainlet.device.board import Board


def check_budget(program: Program, board: Board) -> None:
    """Raises BudgetError where arena, state, scratch and stack exceed the RAM, or the constants the flash."""
    ram, flash = program.ram_bytes + board.stack_bytes, program.bytes["flash"]
    if ram > board.ram.budget_bytes:
        against = f" beside a stack of {board.stack_bytes:,}, {board.name} has {board.ram.budget_bytes:,}"
        raise BudgetError(needs(program, against))
    if flash > board.flash.budget_bytes:
        raise BudgetError(
            f"the constants of {program.name} take {flash:,} bytes of flash, {board.name} has "
            f"{board.flash.budget_bytes:,}: quantize the network, take a smaller one, or take a larger board"
        )


def budget_rows(program: Program, board: Board | None) -> Iterator[tuple[str, int, str]]:
    """(memory, bytes, what it is), for a table."""
    b = program.bytes
    yield "RAM: arena", b["arena"], "activations and gradients, free between calls"
    yield "RAM: state", b["state"], "trained tensors, optimizer; this is what is saved"
    yield "RAM: scratch", b["scratch"], "of the largest kernel, free between calls"
    if program.sample_bytes:
        yield "input", program.sample_bytes, "a sample, read where you have it: beside what follows"
    if board is None:
        yield "RAM, together", program.ram_bytes, "all in one struct; the stack comes on top"
        yield "flash: constants", b["flash"], "weights; code comes on top"
        return
    yield "RAM: stack", board.stack_bytes, "reserved by the board file"
    ram = program.ram_bytes + board.stack_bytes
    yield "RAM, together", ram, f"of the {board.ram.budget_bytes:,} of {board.name}"
    yield "RAM, left", board.ram.budget_bytes - ram, "for your samples and the rest of the firmware"
    yield "flash: constants", b["flash"], f"weights; of the {board.flash.budget_bytes:,} of {board.name}"
    yield "flash, left", board.flash.budget_bytes - b["flash"], "for code; `trainlet emulate` measures it"
